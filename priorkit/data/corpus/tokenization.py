"""Tokenizing text sources in parts, by several processes, with bounded memory.

A source is cut into chunks that follow only from its files, so neither the number of processes nor the
machines among which the chunks are shared change a byte. Text is tokenized as plain text: ``</s>`` in a document
is five characters, not the end of a document.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.corpus.tokenizer_files import TokenizerFiles, load_document_encoder
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import PART_BYTES, FilePart
from priorkit.data.io.rows import parts_of
from priorkit.data.io.worker_processes import Result, Task, Workers, serve
from priorkit.data.text.documents import DocumentReader
from priorkit.data.text.fast_encoder import FastEncodingDiffers

BATCH_DOCUMENTS = 64
"""Documents tokenized together; 64 was the fastest of 64 to 1,000 and needs the least memory."""

BATCH_CHARACTERS = 1 << 20
"""Characters tokenized together; a token takes some 100 bytes before it is written as two or four."""

HASH_BYTES = 16
"""Bytes of a document's hash: among 10^12 documents, two differing ones agree with probability 1e-15."""


@dataclass(frozen=True)
class Chunk:
    """Parts of files of one source that are tokenized as one task."""

    source: int
    parts: tuple[FilePart, ...]


def chunks_of(sources: Sequence[Sequence[Path]]) -> list[Chunk]:
    """Cut sources into chunks of about the same size: parts of large files, or many small files.

    Args:
        sources: the files of each source.
    """
    chunks: list[Chunk] = []
    for number, files in enumerate(sources):
        waiting: list[FilePart] = []
        size = 0
        for file in files:
            for part in parts_of(file):
                waiting.append(part)
                size += file.stat().st_size // part.count
                if size >= PART_BYTES or part.count > 1:
                    chunks.append(Chunk(number, tuple(waiting)))
                    waiting, size = [], 0
        if waiting:
            chunks.append(Chunk(number, tuple(waiting)))
    return chunks


@dataclass(frozen=True)
class TokenizeOptions:
    """How documents are read and what is stored in addition to their tokens.

    Attributes:
        columns: names that the column or key of the text may have.
        labelled: store the labels.
        hashed: store a hash of the text.
    """

    columns: tuple[str, ...]
    labelled: bool
    hashed: bool


def tokenize_chunks(
    chunks: Sequence[Chunk],
    tokenizer: TokenizerFiles,
    options: TokenizeOptions,
    folder: Path,
    workers: int,
    fast: bool = True,
) -> Iterator[tuple[Chunk, Result, Path]]:
    """Tokenize chunks, in order.

    Args:
        chunks: what to tokenize.
        tokenizer: the tokenizer.
        options: how documents are read.
        folder: takes the chunks' files; the consumer of a result removes them.
        workers: the number of processes; 1 works in this one.
        fast: whether gigatoken may encode where it gives the same ids.

    Yields:
        The chunk, the result of :func:`work`, and the path of its files without suffix.

    Raises:
        FastEncodingDiffers: gigatoken gave other ids for a document; what was yielded before may be wrong too.
    """
    outputs = [folder / f"chunk-{number:08d}" for number in range(len(chunks))]
    tasks: Iterator[Task] = (
        {
            "task": "tokenize",
            "parts": [[str(part.path), part.index, part.count] for part in chunk.parts],
            "tokenizer": str(tokenizer.path),
            "end": tokenizer.end,
            "dtype": tokenizer.dtype,
            "columns": list(options.columns),
            "labelled": options.labelled,
            "hashed": options.hashed,
            "fast": fast,
            "out": str(output),
        }
        for chunk, output in zip(chunks, outputs, strict=True)
    )
    results = in_processes(tasks, min(workers, len(chunks)))
    for chunk, result, output in zip(chunks, results, outputs, strict=True):
        if "differs" in result:
            raise FastEncodingDiffers(result["differs"])
        yield chunk, result, output


def copy_documents(
    chunks: Sequence[Chunk],
    counts: Sequence[int],
    wanted: Sequence[Sequence[int]],
    options: TokenizeOptions,
    outputs: Sequence[Path],
    workers: int,
) -> None:
    """Copy documents of the sources, read again, to JSON Lines files with the key ``text``.

    Args:
        chunks: all chunks.
        counts: documents of each chunk.
        wanted: by source, the numbers of its documents to copy, rising.
        options: as when they were tokenized.
        outputs: by source, the file to write.
        workers: the number of processes.
    """
    tasks: list[Task] = []
    owners: list[int] = []
    firsts = [0] * len(outputs)
    for chunk, count in zip(chunks, counts, strict=True):
        positions, first = wanted[chunk.source], firsts[chunk.source]
        firsts[chunk.source] += count
        places = [
            positions[at] - first
            for at in range(bisect_left(positions, first), bisect_left(positions, first + count))
        ]
        if places:
            tasks.append(
                {
                    "task": "copy",
                    "parts": [[str(part.path), part.index, part.count] for part in chunk.parts],
                    "columns": list(options.columns),
                    "labelled": options.labelled,
                    "documents": places,
                    "out": str(outputs[chunk.source].with_suffix(f".{len(tasks):08d}")),
                }
            )
            owners.append(chunk.source)
    for path in outputs:
        path.write_bytes(b"")
    done = in_processes(iter(tasks), min(workers, len(tasks)))
    for _, task, owner in zip(done, tasks, owners, strict=True):
        piece = Path(task["out"])
        with outputs[owner].open("ab") as stream, piece.open("rb") as content:
            shutil.copyfileobj(content, stream)
        piece.unlink()


def in_processes(tasks: Iterator[Task], workers: int) -> Iterator[Result]:
    """Results of tasks in order, from worker processes; with one worker, from this process."""
    if workers <= 1:
        yield from map(work, tasks)
        return
    with Workers("priorkit.data.corpus.tokenization", workers) as pool:
        yield from pool.map(tasks)


def work(task: Task) -> Result:
    """Do one task: tokenize a chunk into ``OUT.tokens``, ``.lengths`` (int64), ``.hashes``, ``.labels``;
    or copy chosen documents of a chunk to ``OUT.jsonl``.

    Returns:
        The numbers of documents and tokens, ``seen`` rows, ``lines`` of each part and broken rows
        as ``[part, row, reason]``; ``differs`` where gigatoken gave other ids than tokenizers.
    """
    if task["task"] == "copy":
        return _copy(task)
    try:
        return _tokenize(task)
    except FastEncodingDiffers as difference:
        return {"differs": str(difference)}


def _tokenize(task: Task) -> Result:
    rejects = Rejects(1.0)
    encoder = load_document_encoder(task["tokenizer"], task["fast"])
    end, dtype = int(task["end"]), np.dtype(task["dtype"])
    out = Path(task["out"])
    documents = tokens = 0
    result: Result = {"lines": [], "broken": []}
    with ExitStack() as stack:

        def opened(suffix: str, wanted: bool = True) -> Any:
            return stack.enter_context(out.with_suffix(suffix).open("wb")) if wanted else None

        token_file, length_file = opened(".tokens"), opened(".lengths")
        hash_file, label_file = opened(".hashes", task["hashed"]), opened(".labels", task["labelled"])
        for batch in _batches(task, rejects, result):
            ids, lengths = with_ends(*encoder.flat_ids([text for text, _ in batch]), end, dtype)
            token_file.write(ids.data)
            length_file.write(lengths.data)
            if hash_file:
                hash_file.write(b"".join(text_hash(text) for text, _ in batch))
            if label_file:
                label_file.write(bytes(bits for _, bits in batch))
            documents += len(batch)
            tokens += len(ids)
    return {**result, "documents": documents, "tokens": tokens, "seen": rejects.total}


def with_ends(
    ids: NDArray[Any], lengths: NDArray[np.int64], end: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Documents one after the other with the end token after each, and the new lengths."""
    lengths = lengths + 1
    ends = np.cumsum(lengths) - 1
    made = np.empty(len(ids) + len(lengths), dtype=dtype)
    inside = np.ones(len(made), dtype=bool)
    inside[ends] = False
    made[inside] = ids
    made[ends] = end
    return made, lengths


def text_hash(text: str) -> bytes:
    """A document's hash, of :data:`HASH_BYTES` bytes."""
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()


def _batches(task: Task, rejects: Rejects, result: Result) -> Iterator[list[tuple[str, int]]]:
    """The chunk's documents in batches of bounded size; records lines and broken rows."""
    batch: list[tuple[str, int]] = []
    characters = 0
    for document in _documents(task, rejects, result):
        if batch and (len(batch) >= BATCH_DOCUMENTS or characters + len(document[0]) > BATCH_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(document)
        characters += len(document[0])
    if batch:
        yield batch


def _documents(task: Mapping[str, Any], rejects: Rejects, result: Result) -> Iterator[tuple[str, int]]:
    for number, (path, index, count) in enumerate(task["parts"]):
        reader = DocumentReader(
            FilePart(Path(path), index, count), rejects, tuple(task["columns"]), task["labelled"]
        )
        yield from reader
        result["lines"].append(reader.lines)
        result["broken"].extend([number, row["row"], row["reason"]] for row in rejects.rows)
        rejects.rows.clear()


def _copy(task: Task) -> Result:
    """Write the documents whose places in the chunk are listed to a JSON Lines file, in order."""
    wanted = set(task["documents"])
    result: Result = {"lines": [], "broken": []}
    with Path(task["out"]).open("w", encoding="utf-8") as stream:
        for index, (text, _) in enumerate(_documents(task, Rejects(1.0), result)):
            if index in wanted:
                stream.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return {"documents": len(wanted)}


if __name__ == "__main__":
    serve(work)
