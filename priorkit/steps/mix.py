"""Mix text sources by shares of tokens into a packed corpus of one tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.core.artifact import Artifact
from priorkit.core.console import console
from priorkit.core.errors import InputError, Problems
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import Count, Named, NamedNumbers, StepSettings, argument, option
from priorkit.data.rejects import Rejects
from priorkit.data.text import check_text_source, read_documents

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from priorkit.data.mixing import Draw


class MixSettings(StepSettings):
    """Options of ``priorkit mix``."""

    step: ClassVar[str] = "mix"
    kind: ClassVar[str] = "corpus"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit mix facts=world/text/facts.jsonl code=world/text/code.jsonl --tokenizer tokenizer "
        "--weight facts=0.7 --weight code=0.3 --tokens 200k --out corpus",
        "priorkit mix books=books/ --tokenizer tokenizer --context-length 512 --out books-corpus",
    )

    sources: Named = argument(
        "Text sources: .jsonl (also .gz, .zst), .parquet, .txt, a folder of them, or a hub dataset id.",
        accepts=("world", "text"),
        metavar="NAME=SOURCE",
        hub="dataset",
    )
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
        {}, "A source's share of the tokens, on any scale; by size where none is given.", metavar="NAME=W"
    )
    max_epochs: float = option(4.0, "How often a source may be repeated to meet its share.", gt=0)
    context_length: Count = option(
        256, "Tokens of a row, the length the model is trained at.", metavar="N", ge=8
    )
    packing: Literal["concat", "best-fit-crop", "best-fit-decreasing"] = option(
        "concat", "How documents fill rows: cut anywhere, cropped to begin with a row, or padded."
    )
    seed: int = option(42, "Seed of the order of documents.", ge=0)
    text_column: str = option("text", "Column or key that holds a document's text.")
    reject_limit: float = option(0.01, "Share of broken rows tolerated, 0 to 1.", ge=0, le=1)


def plan(settings: MixSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check that every source can be read and that the tokenizer is there."""
    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    size = 0
    for label, item in inputs.items():
        try:
            if label == "tokenizer":
                if not (item.path / "tokenizer.json").is_file():
                    raise InputError("no tokenizer.json here", where=f"--tokenizer {item.given}")
                continue
            files = check_text_source(item.path, settings.text_column)
            length = sum(file.stat().st_size for file in files)
            size += length
            facts.append((label.partition(".")[2], f"{len(files)} files, {length / 1e6:.1f} MB"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    return Plan(
        [*facts, ("rows of", f"{settings.context_length} tokens, packed by {settings.packing}")],
        disk_bytes=2 * size + (settings.tokens or 0) * 4,
    )


def execute(settings: MixSettings, work: Work) -> None:
    """Tokenise every source, draw documents to the shares, pack them into rows."""
    from priorkit.data.mixing import budgets, draw
    from priorkit.data.tokenising import tokenise
    from priorkit.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(work.inputs["tokenizer"].path)
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token", where=settings.tokenizer)
    rejects = Rejects(settings.reject_limit)
    lengths: dict[str, NDArray[np.int64]] = {}
    for number, name in enumerate(settings.sources):
        documents = read_documents(work.inputs[f"sources.{name}"].path, rejects, settings.text_column)
        tracked = console.track(documents, f"tokenise {name}", total=0, unit="documents")
        lengths[name] = tokenise(tracked, tokenizer, work.scratch / f"{number}.tokens")
    rejects.judge()
    rejects.write(work.path)
    sizes = {name: int(counts.sum()) for name, counts in lengths.items()}
    wanted = budgets(sizes, settings.weight, settings.tokens, settings.max_epochs)
    drawn = draw(lengths, wanted, settings.seed)
    header = _write_rows(settings, work.path, work.scratch, tokenizer, lengths, drawn)
    shares = {name: count / sum(wanted.values()) for name, count in wanted.items()}
    header["shares"] = shares
    (work.path / "corpus.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(work.path)
    epochs = {name: wanted[name] / sizes[name] if sizes[name] else 0.0 for name in wanted}
    work.metrics.update(
        {key: header[key] for key in ("tokens", "rows", "discarded_share", "padded_share")},
        shares=shares,
        source_tokens=sizes,
        epochs=epochs,
        documents=len(drawn.length),
        rejected=len(rejects),
    )
    for name, share in shares.items():
        console.say(f"  {name:<16} {share:7.2%} of tokens, {epochs[name]:.2f} epochs")


FILE_TOKENS = 64 << 20
"""Tokens in one file of a corpus."""


def _write_rows(
    settings: MixSettings,
    folder: Path,
    scratch: Path,
    tokenizer: Any,
    lengths: Mapping[str, NDArray[np.int64]],
    drawn: Draw,
) -> dict[str, Any]:
    """Write the packed rows; returns the corpus's header without the shares."""
    import numpy as np
    from safetensors.numpy import save_file

    from priorkit.data.corpus import token_dtype
    from priorkit.data.packing import Piece, pack
    from priorkit.data.tokenising import flat_tokens

    flat = [flat_tokens(scratch / f"{number}.tokens", len(tokenizer)) for number in range(len(lengths))]
    starts = [np.concatenate([[0], np.cumsum(counts)]) for counts in lengths.values()]
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    length = settings.context_length
    rows_per_file = max(1, FILE_TOKENS // length)
    files: list[str] = []
    tokens: list[NDArray[Any]] = []
    document_starts: list[int] = []
    kept = rows = 0

    def read(piece: Piece) -> NDArray[Any]:
        source, document = int(drawn.source[piece.document]), int(drawn.document[piece.document])
        begin = int(starts[source][document])
        return flat[source][begin + piece.start : begin + piece.stop]

    def flush() -> None:
        if tokens:
            files.append(f"tokens-{len(files):05d}.safetensors")
            arrays = {
                "tokens": np.concatenate(tokens).astype(token_dtype(len(tokenizer))),
                "document_starts": np.asarray(document_starts, dtype=np.int64),
            }
            save_file(arrays, folder / files[-1])
            tokens.clear()
            document_starts.clear()

    for row in pack(drawn.length.tolist(), length, settings.packing):
        position = (rows % rows_per_file) * length
        filled = 0
        for piece in row:
            if piece.start == 0:
                document_starts.append(position + filled)
            tokens.append(read(piece))
            filled += piece.length
        if filled < length:
            document_starts.append(position + filled)
            tokens.append(np.full(length - filled, padding))
        kept += filled
        rows += 1
        if rows % rows_per_file == 0:
            flush()
    flush()
    if rows == 0:
        raise InputError(
            f"the sources fill not one row of {length} tokens", hint="add text, or lower --context-length"
        )
    drawn_tokens = int(drawn.length.sum())
    return {
        "context_length": length,
        "packing": settings.packing,
        "rows": rows,
        "tokens": rows * length,
        "vocab_size": len(tokenizer),
        "pad_token_id": padding,
        "discarded_share": 1 - kept / drawn_tokens,
        "padded_share": 1 - kept / (rows * length),
        "files": files,
    }


def run(settings: MixSettings) -> Artifact | None:
    """Mix a corpus; see :class:`MixSettings`."""
    return produce(settings, plan, execute)
