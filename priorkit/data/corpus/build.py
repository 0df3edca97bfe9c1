"""Building a corpus from its sources: tokenize, select, mix, pack, write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.process.processors import processors
from priorkit.core.process.progress import progress_bar, track
from priorkit.data.corpus.mixing import draw, make_pools
from priorkit.data.corpus.mixture_statistics import pool_budgets, realized_shares
from priorkit.data.corpus.packing import pack
from priorkit.data.corpus.parts import open_parts, read_part_statistics
from priorkit.data.corpus.selection import HeldOutDocuments, Marks, hold_out, mark_duplicates, no_marks
from priorkit.data.corpus.settings import MixSettings
from priorkit.data.corpus.token_store import SourceStatistics, TokenizedSource, collect, open_collected
from priorkit.data.corpus.tokenization import Chunk, TokenizeOptions, copy_documents, tokenize_chunks
from priorkit.data.corpus.tokenizer_files import TokenizerFiles, load_document_encoder
from priorkit.data.corpus.writer import write_rows
from priorkit.data.text.fast_encoder import FastEncodingDiffers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusBuild:
    """What every stage of building a corpus needs.

    Attributes:
        settings: of the step.
        tokenizer: the tokenizer.
        options: how the sources' documents are read.
        scratch: folder for temporary files.
    """

    settings: MixSettings
    tokenizer: TokenizerFiles
    options: TokenizeOptions
    scratch: Path

    @property
    def names(self) -> list[str]:
        """The sources' names."""
        return list(self.settings.sources)

    @property
    def workers(self) -> int:
        """Tokenization processes."""
        return self.settings.workers or processors()

    def tokenize(self, chunks: Sequence[Chunk]) -> SourceStatistics:
        """Tokenize chunks into one set of files per source in the scratch folder."""
        encoder = load_document_encoder(str(self.tokenizer.path))
        logger.info(f"  text is encoded by {'gigatoken' if encoder.is_fast else 'tokenizers'}")
        try:
            return self._tokenize(chunks, fast=True)
        except FastEncodingDiffers as difference:
            logger.warning(f"{difference}; all sources are tokenized again, by tokenizers only")
            return self._tokenize(chunks, fast=False)

    def _tokenize(self, chunks: Sequence[Chunk], fast: bool) -> SourceStatistics:
        results = tokenize_chunks(chunks, self.tokenizer, self.options, self.scratch, self.workers, fast)
        tracked = track(results, "tokenize", total=len(chunks), unit="chunks")
        return collect(tracked, self.names, self.options, self.scratch)

    def open_sources(self) -> list[TokenizedSource]:
        """Open what :meth:`tokenize` wrote."""
        return open_collected(self.scratch, self.names, self.tokenizer.dtype)

    def join_parts(
        self, parts: Sequence[Path], chunks: Sequence[Chunk]
    ) -> tuple[SourceStatistics, list[TokenizedSource]]:
        """Open parts that were made with ``--shard``, in order.

        Raises:
            InputError: a part is damaged, or they were cut otherwise than these chunks.
        """
        statistics = read_part_statistics(parts)
        if len(statistics.documents) != len(chunks):
            raise InputError(
                f"the parts hold {len(statistics.documents)} chunks, the sources have {len(chunks)}",
                where="--parts",
                hint="make them again with this version",
            )
        return statistics, open_parts(parts, self.names, self.scratch)


@dataclass(frozen=True)
class DocumentSelection:
    """Which documents are used.

    Attributes:
        marks: what each document of each source is used for; None where all are trained on.
        held_out: the held-out documents of each source; empty where none are.
        figures: counts for ``corpus.json`` and the manifest.
    """

    marks: Sequence[Marks] | None = None
    held_out: Sequence[HeldOutDocuments] = ()
    figures: dict[str, Any] = field(default_factory=dict[str, Any])


def select_documents(build: CorpusBuild, sources: Sequence[TokenizedSource]) -> DocumentSelection:
    """Mark duplicates and what is held out.

    Raises:
        InputError: a source consists of duplicates only, or is too small to hold so much out.
    """
    settings = build.settings
    figures: dict[str, Any] = {"source_tokens": {source.name: source.tokens for source in sources}}
    if not settings.deduplicate and settings.held_out is None:
        return DocumentSelection(figures=figures)
    marks = no_marks(sources, build.scratch)
    held_out: list[HeldOutDocuments] = []
    if settings.deduplicate:
        figures["duplicates"] = _mark_duplicates(sources, marks, build.scratch)
    if settings.held_out is not None:
        held_out = hold_out(sources, marks, settings.held_out, settings.seed)
        figures["held_out"] = {
            source.name: {"documents": len(part.documents), "tokens": part.tokens, "copies": part.copies}
            for source, part in zip(sources, held_out, strict=True)
        }
    return DocumentSelection(marks, held_out, figures)


def _mark_duplicates(
    sources: Sequence[TokenizedSource], marks: Sequence[Marks], scratch: Path
) -> dict[str, int]:
    counts = mark_duplicates(sources, marks, scratch)
    problems = Problems(InputError)
    for source, count in zip(sources, counts, strict=True):
        if count == source.documents:
            problems.add(
                f"nothing is left of '{source.name}': all {count:,} documents are in the sources before it",
                where="--deduplicate",
                hint="leave the source out",
            )
        logger.info(f"  {source.name:<16} {count:,} of {source.documents:,} documents are duplicates")
    problems.raise_if_any()
    return {source.name: count for source, count in zip(sources, counts, strict=True)}


def write_held_out(
    build: CorpusBuild,
    chunks: Sequence[Chunk],
    statistics: SourceStatistics,
    held_out: Sequence[HeldOutDocuments],
    folder: Path,
) -> None:
    """Write ``held_out/NAME.jsonl``, a document per line under the key ``text``."""
    (folder / "held_out").mkdir()
    copy_documents(
        chunks,
        statistics.documents,
        [part.documents.tolist() for part in held_out],
        build.options,
        [folder / "held_out" / f"{name}.jsonl" for name in build.names],
        build.workers,
    )


def write_corpus(
    build: CorpusBuild, sources: Sequence[TokenizedSource], marks: Sequence[Marks] | None, folder: Path
) -> dict[str, Any]:
    """Draw documents to the shares, pack them and write the rows; returns the corpus's header.

    Raises:
        UsageError: the weights or targets cannot be met.
        InputError: the sources do not fill a row, or packing discarded so much that a target is missed.
    """
    settings, tokenizer = build.settings, build.tokenizer
    pools = make_pools(sources, marks, bool(settings.target), build.scratch)
    budgets = pool_budgets(
        pools,
        sources,
        weights=settings.weight,
        unit=settings.weight_unit,
        targets=settings.target,
        tokens=settings.tokens,
        epochs={name: settings.source_epochs.get(name, settings.max_epochs) for name in settings.sources},
        seed=settings.seed,
    )
    length, total = settings.context_length, sum(budgets)
    packed = pack(draw(pools, sources, budgets, settings.seed), length, settings.packing)
    with progress_bar("pack", total, unit="tokens") as progress:
        written = write_rows(
            packed, pools, sources, length, tokenizer.padding, folder, build.scratch, progress.advance
        )
    for source in sources:
        source.close()
    if written.rows == 0:
        if settings.tokens is not None and settings.tokens < length:
            raise UsageError(
                f"{settings.tokens} tokens do not fill a row of {length}",
                where="--tokens",
                hint="raise it, or lower --context-length",
            )
        raise InputError(
            f"the sources do not fill a row of {length} tokens",
            where=", ".join(settings.sources.values()),
            hint="add text, or lower --context-length",
        )
    tokens = int(written.tokens.sum())
    return {
        "context_length": length,
        "packing": settings.packing,
        "rows": written.rows,
        "tokens": written.rows * length,
        "documents": int(written.documents.sum()),
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.padding,
        "discarded_share": 1 - tokens / total,
        "padded_share": 1 - tokens / (written.rows * length),
        "files": written.files,
        **realized_shares(pools, sources, budgets, written.tokens, written.documents, settings.target),
        "weight_unit": settings.weight_unit,
        **({"targets": settings.target} if settings.target else {}),
    }
