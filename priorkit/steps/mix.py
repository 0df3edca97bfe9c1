"""Mix text sources by shares of tokens into a packed corpus of one tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.errors import InputError, Problems
from priorkit.core.process.runtime import peak_memory_of_children
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.corpus.settings import MixSettings

if TYPE_CHECKING:
    from priorkit.data.corpus.build import CorpusBuild
    from priorkit.data.corpus.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class MixPlan:
    """What is read.

    Attributes:
        files: the files of each source.
        parts: folders of the parts to join, in order; empty where the sources are tokenized.
    """

    files: list[list[Path]]
    parts: list[Path]


def plan(settings: MixSettings, inputs: Inputs) -> Plan[MixPlan]:
    """Check that every source can be read and has the columns needed, and that the tokenizer is there."""
    from priorkit.data.corpus.parts import check_parts
    from priorkit.data.corpus.sources import check_settings, source_files, tokenize_options

    check_settings(settings)
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    files: list[list[Path]] = []
    size = 0
    if not (inputs.one("tokenizer").path / "tokenizer.json").is_file():
        problems.add("no tokenizer.json here", where=f"--tokenizer {settings.tokenizer}")
    for name, source in inputs.named("sources").items():
        try:
            paths = source_files(settings, name, source)
        except InputError as error:
            problems.extend(error)
            continue
        length = sum(path.stat().st_size for path in paths)
        size += length
        files.append(paths)
        facts.append((name, f"{len(paths)} files, {length / 1e6:.1f} MB"))
    problems.raise_if_any()
    parts: list[Path] = []
    if settings.parts:
        others = [item for label, item in inputs.items() if not label.startswith("parts.")]
        parts = check_parts(inputs.many("parts"), others, tokenize_options(settings))
    if settings.shard:
        facts.append(("part", settings.shard))
    else:
        facts.append(("rows of", f"{settings.context_length} tokens, packed by {settings.packing}"))
    return Plan(
        facts,
        disk_bytes=2 * size + (settings.tokens or 0) * 4,
        payload=MixPlan(files, parts),
        kind="corpus-part" if settings.shard else "",
    )


def execute(settings: MixSettings, work: Work[MixPlan]) -> None:
    """Tokenize every source, choose and draw documents to the shares, pack them into rows."""
    from priorkit.data.corpus.build import CorpusBuild, select_documents, write_corpus, write_held_out
    from priorkit.data.corpus.sources import check_not_empty, tokenize_options
    from priorkit.data.corpus.tokenization import chunks_of

    tokenizer = _take_tokenizer(
        work.inputs.one("tokenizer").path, work.scratch / "tokenizer" if settings.shard else work.path
    )
    build = CorpusBuild(settings, tokenizer, tokenize_options(settings), work.scratch)
    chunks = chunks_of(work.plan.payload.files)
    if settings.shard:
        _write_part(build, settings.shard, work)
        return
    if work.plan.payload.parts:
        statistics, sources = build.join_parts(work.plan.payload.parts, chunks)
    else:
        statistics = build.tokenize(chunks)
        work.cost.update(largest_worker_bytes=peak_memory_of_children())
        sources = build.open_sources()
    rejects = statistics.rejects(settings.reject_limit)
    rejects.raise_if_over_limit()
    rejects.write(work.path)
    check_not_empty(settings, sources)
    selection = select_documents(build, sources)
    if selection.held_out:
        write_held_out(build, chunks, statistics, selection.held_out, work.path)
    header = {**write_corpus(build, sources, selection.marks, work.path), **selection.figures}
    (work.path / "corpus.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    work.metrics.update(
        {name: header[name] for name in header if name not in ("files", "context_length", "pad_token_id")},
        rejected=len(rejects),
    )


def _write_part(build: CorpusBuild, shard: str, work: Work[MixPlan]) -> None:
    """Tokenize one part of the sources, to be joined with the others later."""
    from priorkit.data.corpus.parts import of_shard, save_part, write_part
    from priorkit.data.corpus.tokenization import chunks_of

    chunks = of_shard(chunks_of(work.plan.payload.files), shard)
    statistics = build.tokenize(chunks)
    work.cost.update(largest_worker_bytes=peak_memory_of_children())
    save_part(work.scratch, len(build.names), build.options, build.tokenizer.dtype, work.path)
    write_part(work.path, shard, build.options, build.tokenizer.dtype, statistics)
    work.metrics.update(documents=sum(statistics.documents), chunks=len(chunks))


def _take_tokenizer(source: Path, folder: Path) -> TokenizerFiles:
    """Put a tokenizer into a folder, its files unchanged where they say all that is needed.

    transformers, which takes seconds and hundreds of megabytes to import, is used only where the
    tokenizer's class may tokenize otherwise than ``tokenizer.json`` says.

    Raises:
        InputError: it cannot be read, or has no end-of-sequence token.
    """
    from priorkit.data.corpus.tokenizer_files import copy_tokenizer, is_plain, read_tokenizer

    folder.mkdir(exist_ok=True)
    if is_plain(source):
        read_tokenizer(source)
        copy_tokenizer(source, folder)
    else:
        from priorkit.models.language.tokenizer import load_tokenizer

        load_tokenizer(source).save_pretrained(folder)
    return read_tokenizer(folder)


STEP = Step(MixSettings, plan, execute)
run = STEP.run
