"""Mix text sources by shares of tokens into a packed corpus of one tokenizer."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.progress import progress_bar, track
from priorkit.core.runtime import peak_memory_of_children
from priorkit.core.settings import StepSettings, option, reject_limit_option
from priorkit.core.step import Step
from priorkit.core.values import Count, Named, NamedNumbers, Words, parse_count
from priorkit.core.work import Plan, Work
from priorkit.data.text.documents import (
    LABEL_COLUMN,
    check_text_source,
    column_option,
    is_plain_text,
    sources_argument,
)

if TYPE_CHECKING:
    from priorkit.data.corpus.selection import HeldOutDocuments, Marks
    from priorkit.data.corpus.token_store import SourceStatistics, TokenizedSource
    from priorkit.data.corpus.tokenization import Chunk, TokenizeOptions, TokenizerFiles

logger = logging.getLogger(__name__)


def _amount(value: Any) -> Any:
    """A share (0.01) or a number of tokens (200k)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        return parse_count(value)
    except ValueError:
        raise ValueError(f"should be a share such as 0.01 or a number such as 200k, got '{value}'") from None


def _shard(value: str | None) -> str | None:
    from priorkit.data.corpus.parts import shard_of

    return None if value is None else "/".join(map(str, shard_of(value)))


class MixSettings(StepSettings):
    """Options of ``priorkit mix``."""

    step: ClassVar[str] = "mix"
    kind: ClassVar[str] = "corpus"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit mix facts=world/text/facts.jsonl code=world/text/code.jsonl --tokenizer tokenizer "
        "--weight facts=0.7 --weight code=0.3 --tokens 200k --out corpus",
        "priorkit mix books=books/ --tokenizer tokenizer --context-length 512 --held-out 0.01 "
        "--deduplicate --out books-corpus",
    )

    sources: Named = sources_argument()
    tokenizer: str = option(
        ...,
        "Tokenizer: an artifact that carries one, a model directory, or a hub id.",
        accepts=("tokenizer", "llm", "corpus", "mllm"),
        hub="model",
    )
    tokens: Count | None = option(
        None, "Length of the corpus in tokens, such as 1M; as many as there are where not given.", metavar="N"
    )
    weight: NamedNumbers = option(
        {}, "A source's share, on any scale; by size where none is given.", metavar="NAME=W"
    )
    weight_unit: Literal["tokens", "documents"] = option(
        "tokens", "What the weights are shares of.", advanced=True
    )
    target: NamedNumbers = option(
        {},
        "A label's share of the tokens, 0 to 1, for sources made by label-corpus.",
        metavar="LABEL=SHARE",
    )
    max_epochs: float = option(4.0, "How often a source may be repeated to meet its share.", gt=0)
    source_epochs: NamedNumbers = option(
        {},
        "A source's own limit in place of --max-epochs.",
        metavar="NAME=X",
        advanced=True,
    )
    held_out: Annotated[float | None, BeforeValidator(_amount)] = option(
        None,
        "Text of each source kept for testing: a share of its tokens (0.01) or a number of them (200k).",
        metavar="X",
        gt=0,
    )
    deduplicate: bool = option(False, "Use documents with the same text only once.")
    context_length: Count = option(
        256, "Tokens of a row, the length the model is trained at.", metavar="N", ge=8
    )
    packing: Literal["concat", "best-fit-crop", "best-fit-decreasing"] = option(
        "concat", "How documents fill rows: cut anywhere, cropped to begin with a row, or padded."
    )
    seed: int = option(42, "Seed of the order of documents.", ge=0, lt=1 << 32)
    text_column: str = column_option()
    subset: Named = option(
        {}, "Subset of a source that is a hub dataset.", metavar="NAME=SUBSET", advanced=True
    )
    split: str = option("train", "Split that is read of sources that are hub datasets.", advanced=True)
    reject_limit: float = reject_limit_option("rows")
    shard: Annotated[str | None, AfterValidator(_shard)] = option(
        None,
        "Tokenise only part I of N, to be joined with --parts later.",
        metavar="I/N",
        advanced=True,
    )
    parts: Words = option(
        (),
        "Parts made with --shard by the same command, to be joined.",
        accepts=("corpus-part",),
        metavar="DIR",
        advanced=True,
    )
    workers: int = option(
        0, "Processes that tokenise, 0 for one per processor.", ge=0, changes_result=False, metavar="N"
    )


def plan(settings: MixSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that every source can be read and has what is asked of it, and that the tokenizer is there."""
    _check_names(settings)
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    files: list[list[Path]] = []
    size = 0
    if not (inputs["tokenizer"].path / "tokenizer.json").is_file():
        problems.add("no tokenizer.json here", where=f"--tokenizer {settings.tokenizer}")
    for name in settings.sources:
        try:
            found = _files(settings, name, inputs[f"sources.{name}"])
        except InputError as error:
            problems.extend(error)
            continue
        length = sum(file.stat().st_size for file in found)
        size += length
        files.append(found)
        facts.append((name, f"{len(found)} files, {length / 1e6:.1f} MB"))
    problems.raise_if_any()
    parts: list[Path] = []
    if settings.parts:
        from priorkit.data.corpus.parts import check_parts

        given = [item for label, item in inputs.items() if label.startswith("parts.")]
        others = [item for label, item in inputs.items() if not label.startswith("parts.")]
        parts = check_parts(given, others, _options(settings))
    if settings.shard:
        facts.append(("part", settings.shard))
    else:
        facts.append(("rows of", f"{settings.context_length} tokens, packed by {settings.packing}"))
    return Plan(
        facts,
        disk_bytes=2 * size + (settings.tokens or 0) * 4,
        payload=(files, parts),
        kind="corpus-part" if settings.shard else "",
    )


def _check_names(settings: MixSettings) -> None:
    """Refuse what names alone show to be wrong."""
    from priorkit.data.corpus.label_targets import check_targets
    from priorkit.data.corpus.mixing import check_weights

    problems = Problems(UsageError)
    names = list(settings.sources)
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.add(
                f"'{name}' is no name for a source", where="SOURCES", hint="use letters, digits, . _ -"
            )
    for flag, table in (("--source-epochs", settings.source_epochs), ("--subset", settings.subset)):
        for name in table:
            if name not in names:
                problems.add(f"no source is named '{name}'", where=flag, hint=nearest(name, names))
    for name, epochs in settings.source_epochs.items():
        if epochs <= 0:
            problems.add(
                f"the limit of '{name}' should be greater than 0, got {epochs:g}", where="--source-epochs"
            )
    for check in (
        lambda: check_weights(names, settings.weight),
        lambda: check_targets(settings.target),
    ):
        try:
            check()
        except UsageError as error:
            problems.extend(error)
    if settings.target and settings.weight_unit == "documents":
        problems.add("targets are shares of tokens", where="--target", hint="use --weight-unit tokens")
    if settings.held_out is not None and settings.held_out > 1 and settings.held_out % 1:
        problems.add(f"a whole number of tokens is wanted, got {settings.held_out}", where="--held-out")
    if settings.shard and settings.parts:
        problems.add("--shard makes one part, --parts joins all", hint="give one of them")
    problems.raise_if_any()


def _files(settings: MixSettings, name: str, source: Input) -> list[Path]:
    """A source's files, with the columns that are needed."""
    where = f"{name}={source.given}"
    if source.kind == "hub":
        from priorkit.data.io.hub_files import split_files

        found = split_files(source.path, settings.subset.get(name), settings.split, where)
        files = [file for path in found for file in check_text_source(path, settings.text_column)]
    else:
        if name in settings.subset:
            raise InputError("only hub datasets have subsets", where=where)
        files = check_text_source(source.path, settings.text_column)
    if settings.target:
        from priorkit.data.io.rows import column_names

        for file in files:
            if is_plain_text(file) or LABEL_COLUMN not in column_names(file):
                raise InputError(
                    f"no column '{LABEL_COLUMN}', which --target needs",
                    where=str(file),
                    hint="make it with label-corpus",
                )
    return files


def _options(settings: MixSettings) -> TokenizeOptions:
    from priorkit.data.corpus.tokenization import TokenizeOptions

    return TokenizeOptions(
        column=settings.text_column,
        labelled=bool(settings.target),
        hashed=settings.deduplicate or settings.held_out is not None,
    )


def execute(settings: MixSettings, work: Work) -> None:
    """Tokenise every source, choose and draw documents to the shares, pack them into rows."""
    from priorkit.data.corpus.parts import of_shard, read_part_statistics, write_part
    from priorkit.data.corpus.token_store import collect, open_collected, open_parts, save_part
    from priorkit.data.corpus.tokenization import chunks_of, tokenize_chunks
    from priorkit.data.io.worker_processes import processors

    files, parts = work.plan.payload
    names, options = list(settings.sources), _options(settings)
    workers = settings.workers or processors()
    tokenizer = take_tokenizer(
        work.inputs["tokenizer"].path, work.scratch / "tokenizer" if settings.shard else work.path
    )
    chunks = chunks_of(files)
    if parts:
        reading, sources = read_part_statistics(parts), open_parts(parts, names, work.scratch)
        if len(reading.documents) != len(chunks):
            raise InputError(
                f"the parts hold {len(reading.documents)} chunks, the sources have {len(chunks)}",
                where="--parts",
                hint="make them again with this version",
            )
    else:
        own = of_shard(chunks, settings.shard) if settings.shard else chunks
        results = tokenize_chunks(own, tokenizer, options, work.scratch, workers)
        tracked = track(results, "tokenise", total=len(own), unit="chunks")
        reading = collect(tracked, names, options, work.scratch)
        work.cost.update(largest_worker_bytes=peak_memory_of_children())
        if settings.shard:
            save_part(work.scratch, len(names), options, tokenizer.dtype, work.path)
            write_part(work.path, settings.shard, options, tokenizer.dtype, reading)
            work.metrics.update(documents=sum(reading.documents), chunks=len(own))
            return
        sources = open_collected(work.scratch, names, tokenizer.dtype)
    rejects = reading.rejects(settings.reject_limit)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    _refuse_empty(settings, sources)
    marks, selected, held = _select(settings, work, sources)
    if held:
        _write_held_out(work.path, chunks, reading, names, held, options, workers)
    header = _mix(settings, work, tokenizer, sources, marks)
    header.update(selected)
    (work.path / "corpus.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    work.metrics.update(
        {name: header[name] for name in header if name not in ("files", "context_length", "pad_token_id")},
        rejected=len(rejects),
    )


TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates", "vocab.json", "merges.txt",
    "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
"""What a tokenizer consists of, so that it travels along whole."""


def take_tokenizer(source: Path, folder: Path) -> TokenizerFiles:
    """Put a tokenizer into a folder, its files unchanged where they tell all that is needed.

    transformers, which takes seconds and hundreds of megabytes to import, is asked only where its class
    may tokenise otherwise than ``tokenizer.json`` says.

    Raises:
        InputError: it cannot be read, or has no end-of-sequence token.
    """
    from priorkit.data.corpus.tokenization import is_plain, read_tokenizer

    folder.mkdir(exist_ok=True)
    if is_plain(source):
        read_tokenizer(source)
        for name in TOKENIZER_FILES:
            if (source / name).is_dir():
                shutil.copytree(source / name, folder / name)
            elif (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
    else:
        from priorkit.models.language.tokenizer import load_tokenizer

        load_tokenizer(source).save_pretrained(folder)
    return read_tokenizer(folder)


def _refuse_empty(settings: MixSettings, sources: Sequence[TokenizedSource]) -> None:
    problems = Problems(InputError)
    for (name, given), source in zip(settings.sources.items(), sources, strict=True):
        if not source.documents:
            problems.add("no documents here", where=f"{name}={given}")
    problems.raise_if_any()


def _select(
    settings: MixSettings, work: Work, sources: Sequence[TokenizedSource]
) -> tuple[Sequence[Marks] | None, dict[str, Any], list[HeldOutDocuments]]:
    """Mark duplicates and what is held out; returns marks, figures, and the held-out documents."""
    from priorkit.data.corpus.selection import hold_out, mark_duplicates, no_marks

    figures: dict[str, Any] = {"source_tokens": {source.name: source.tokens for source in sources}}
    held: list[HeldOutDocuments] = []
    if not settings.deduplicate and settings.held_out is None:
        return None, figures, held
    marks = no_marks(sources, work.scratch)
    if settings.deduplicate:
        counts = mark_duplicates(sources, marks, work.scratch)
        figures["duplicates"] = {source.name: n for source, n in zip(sources, counts, strict=True)}
        problems = Problems(InputError)
        for source, count in zip(sources, counts, strict=True):
            if count == source.documents:
                problems.add(
                    f"nothing is left of '{source.name}': all {count:,} documents stand in the sources before it",
                    where="--deduplicate",
                    hint="leave the source out",
                )
            logger.info(f"  {source.name:<16} {count:,} of {source.documents:,} documents are duplicates")
        problems.raise_if_any()
    if settings.held_out is not None:
        held = hold_out(sources, marks, settings.held_out, settings.seed)
        figures["held_out"] = {
            source.name: {"documents": len(part.documents), "tokens": part.tokens, "copies": part.copies}
            for source, part in zip(sources, held, strict=True)
        }
    return marks, figures, held


def _write_held_out(
    folder: Path,
    chunks: Sequence[Chunk],
    reading: SourceStatistics,
    names: Sequence[str],
    held: Sequence[HeldOutDocuments],
    options: TokenizeOptions,
    workers: int,
) -> None:
    """Write ``held_out/NAME.jsonl``, a document a line under the key ``text``."""
    from priorkit.data.corpus.tokenization import copy_documents

    (folder / "held_out").mkdir()
    copy_documents(
        chunks,
        reading.documents,
        [part.documents.tolist() for part in held],
        options,
        [folder / "held_out" / f"{name}.jsonl" for name in names],
        workers,
    )


def _mix(
    settings: MixSettings,
    work: Work,
    tokenizer: TokenizerFiles,
    sources: Sequence[TokenizedSource],
    marks: Sequence[Marks] | None,
) -> dict[str, Any]:
    """Draw documents, pack and write the rows; returns the corpus's header."""
    from priorkit.data.corpus.mixing import draw, make_pools
    from priorkit.data.corpus.mixture_statistics import pool_budgets, realised_shares
    from priorkit.data.corpus.packing import pack
    from priorkit.data.corpus.writer import write_rows

    pools = make_pools(sources, marks, bool(settings.target), work.scratch)
    wanted = pool_budgets(
        pools,
        sources,
        weights=settings.weight,
        unit=settings.weight_unit,
        targets=settings.target,
        tokens=settings.tokens,
        epochs={name: settings.source_epochs.get(name, settings.max_epochs) for name in settings.sources},
        seed=settings.seed,
    )
    length = settings.context_length
    rows = pack(draw(pools, sources, wanted, settings.seed), length, settings.packing)
    total = sum(wanted)
    with progress_bar("pack", total, unit="tokens") as progress:
        written = write_rows(
            rows, pools, sources, length, tokenizer.padding, work.path, work.scratch, progress.advance
        )
    for source in sources:
        source.close()
    if written.rows == 0:
        raise InputError(
            f"the sources fill not one row of {length} tokens", hint="add text, or lower --context-length"
        )
    kept = int(written.kept.sum())
    header: dict[str, Any] = {
        "context_length": length,
        "packing": settings.packing,
        "rows": written.rows,
        "tokens": written.rows * length,
        "documents": int(written.documents.sum()),
        "vocab_size": tokenizer.vocab_size,
        "pad_token_id": tokenizer.padding,
        "discarded_share": 1 - kept / total,
        "padded_share": 1 - kept / (written.rows * length),
        "files": written.files,
    }
    header.update(realised_shares(pools, sources, wanted, written.kept, written.documents, settings.target))
    header["weight_unit"] = settings.weight_unit
    if settings.target:
        header["targets"] = settings.target
    return header


STEP = Step(MixSettings, plan, execute)
run = STEP.run
