"""Tokenized sources on disk: flat tokens, the starts of documents, and their hashes and labels.

Everything is read by position, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import bisect
import itertools
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.corpus.tokenization import HASH_BYTES, Chunk, Result, TokenizeOptions
from priorkit.data.io.rejects import Rejects

BLOCK = 1 << 12
"""Documents whose bounds are read together."""


def release(array: NDArray[Any]) -> None:
    """Release the pages of a memory-mapped array, which would count as this process's memory."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def blocks(count: int, size: int = 1 << 18) -> Iterator[slice]:
    """Consecutive slices that cover ``range(count)``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass(frozen=True)
class TokenFile:
    """A stretch of tokens in a file.

    Attributes:
        path: the file.
        offset: the byte where the stretch begins.
        tokens: its length.
    """

    path: Path
    offset: int
    tokens: int


@dataclass
class TokenizedSource:
    """The documents of one source.

    Attributes:
        name: the source's name.
        dtype: of the tokens.
        files: where the tokens are, in order; no document crosses from one to the next.
        starts: int64 ``[documents + 1]``, the token where each document begins, and the end.
        hashes: uint8 ``[documents, 16]``, or None where they were not asked for.
        labels: uint8 ``[documents]``, label bits, or None.
    """

    name: str
    dtype: np.dtype[Any]
    files: list[TokenFile]
    starts: NDArray[np.int64]
    hashes: NDArray[np.uint8] | None
    labels: NDArray[np.uint8] | None
    _open: list[int] = field(default_factory=list[int])
    _firsts: list[int] = field(default_factory=list[int])

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> int:
        """The number of tokens, end tokens included."""
        return int(self.starts[-1])

    def bounds(self, documents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts and lengths of documents; read in blocks, so that few pages are held."""
        begins = np.empty(len(documents), dtype=np.int64)
        lengths = np.empty(len(documents), dtype=np.int64)
        for part in blocks(len(documents), BLOCK):
            begins[part] = self.starts[documents[part]]
            lengths[part] = self.starts[documents[part] + 1] - begins[part]
            if len(self.starts) > 1 << 21:
                release(self.starts)
        return begins, lengths

    def read(self, begin: int, count: int) -> NDArray[Any]:
        """Tokens ``begin`` to ``begin + count``, within one document.

        They are read, not mapped: mapped pages of a large file would count as this process's memory.
        """
        if not self._open:
            self._open = [os.open(file.path, os.O_RDONLY) for file in self.files]
            self._firsts = [0, *itertools.accumulate(file.tokens for file in self.files)]
        number = bisect.bisect_right(self._firsts, begin) - 1
        width = self.dtype.itemsize
        offset = self.files[number].offset + (begin - self._firsts[number]) * width
        return np.frombuffer(os.pread(self._open[number], count * width, offset), dtype=self.dtype)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._open:
            os.close(descriptor)
        self._open = []


@dataclass
class SourceStatistics:
    """What was read from the files of all sources: rows, documents, lines, broken rows.

    Attributes:
        seen: rows read, by source.
        documents: documents of each chunk.
        lines: lines of each plain JSON Lines file.
        broken: ``[file, row, reason]``; the row counts from the beginning of what ``lines`` counts.
    """

    seen: list[int]
    documents: list[int] = field(default_factory=list[int])
    lines: dict[str, int] = field(default_factory=dict[str, int])
    broken: list[tuple[str, int, str]] = field(default_factory=list[tuple[str, int, str]])

    def add(self, chunk: Chunk, result: Result) -> None:
        """Add the result of the next chunk."""
        self.seen[chunk.source] += result["seen"]
        self.documents.append(result["documents"])
        for number, part in enumerate(chunk.parts):
            file = str(part.path)
            before = self.lines.get(file, 0)
            self.broken.extend(
                (file, before + row, reason) for index, row, reason in result["broken"] if index == number
            )
            if result["lines"][number]:
                self.lines[file] = before + result["lines"][number]

    def join(self, later: SourceStatistics) -> None:
        """Add the statistics of the chunks that follow."""
        self.documents += later.documents
        self.seen = [a + b for a, b in zip(self.seen, later.seen, strict=True)]
        self.broken.extend((file, self.lines.get(file, 0) + row, why) for file, row, why in later.broken)
        for file, lines in later.lines.items():
            self.lines[file] = self.lines.get(file, 0) + lines

    def rejects(self, limit: float) -> Rejects:
        """The broken rows, to be checked against the limit and written."""
        rejects = Rejects(limit)
        for row in self.broken:
            rejects.add(*row)
        rejects.total = sum(self.seen)
        return rejects


def source_stems(folder: Path, count: int) -> list[Path]:
    """The files of each source, without their suffix."""
    return [folder / f"source-{number:05d}" for number in range(count)]


def collect(
    results: Iterable[tuple[Chunk, Result, Path]],
    names: Sequence[str],
    options: TokenizeOptions,
    folder: Path,
) -> SourceStatistics:
    """Append the chunks' files, in order, to one set of files per source in ``folder``.

    Returns:
        What was read; the files are opened with :func:`open_collected` or kept as a part of a corpus (``parts.py``).
    """
    reading = SourceStatistics([0] * len(names))
    suffixes = file_suffixes(options)
    with ExitStack() as stack:
        streams = {
            (number, suffix): stack.enter_context(stem.with_suffix(suffix).open("wb"))
            for number, stem in enumerate(source_stems(folder, len(names)))
            for suffix in suffixes
        }
        for chunk, result, path in results:
            reading.add(chunk, result)
            for suffix in suffixes:
                piece = path.with_suffix(suffix)
                with piece.open("rb") as stream:
                    while content := stream.read(1 << 20):
                        streams[chunk.source, suffix].write(content)
                piece.unlink()
    return reading


def file_suffixes(options: TokenizeOptions) -> list[str]:
    """Suffixes of a source's files: tokens and lengths, hashes and labels where they are needed."""
    extra = {".hashes": options.hashed, ".labels": options.labelled}
    return [".tokens", ".lengths", *(suffix for suffix, wanted in extra.items() if wanted)]


def open_collected(folder: Path, names: Sequence[str], dtype: str) -> list[TokenizedSource]:
    """Open what :func:`collect` wrote."""
    opened: list[TokenizedSource] = []
    for name, stem in zip(names, source_stems(folder, len(names)), strict=True):
        path = stem.with_suffix(".tokens")
        tokens = TokenFile(path, 0, path.stat().st_size // np.dtype(dtype).itemsize)
        lengths = stem.with_suffix(".lengths")
        starts = write_starts([map_array(lengths, np.int64)], stem.with_suffix(".starts"))
        hashes, labels = stem.with_suffix(".hashes"), stem.with_suffix(".labels")
        opened.append(
            TokenizedSource(
                name,
                np.dtype(dtype),
                [tokens],
                starts,
                map_array(hashes, np.uint8).reshape(-1, HASH_BYTES) if hashes.is_file() else None,
                map_array(labels, np.uint8) if labels.is_file() else None,
            )
        )
    return opened


def map_array(path: Path, dtype: Any) -> NDArray[Any]:
    """A file mapped as a flat array; an empty file is an empty array."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def write_starts(lengths: Sequence[NDArray[np.int64]], path: Path) -> NDArray[np.int64]:
    """Write the running sum of document lengths, from 0, and map it."""
    total = 0
    with path.open("wb") as stream:
        stream.write(np.zeros(1, dtype=np.int64).tobytes())
        for array in lengths:
            for part in blocks(len(array)):
                ends = total + np.cumsum(array[part])
                stream.write(ends.tobytes())
                total = int(ends[-1])
                release(array)
    return map_array(path, np.int64)
