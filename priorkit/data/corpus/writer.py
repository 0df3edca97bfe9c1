"""Writing a corpus: rows gathered from the sources into safetensors files, with counts of what they contain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from priorkit.data.corpus.mixing import DocumentPool
from priorkit.data.corpus.packing import Pieces
from priorkit.data.corpus.token_store import TokenizedSource
from priorkit.data.io.tensor_file import write_raw

FILE_TOKENS = 64 << 20
"""Tokens in one file of a corpus."""

SLICE_TOKENS = 1 << 20
"""Tokens gathered in memory before they are written."""


@dataclass
class WrittenRows:
    """What was written.

    Attributes:
        files: names of the token files.
        rows: how many rows.
        tokens: int64, tokens of each pool in the rows.
        documents: int64, documents of each pool that begin in the rows.
    """

    files: list[str]
    rows: int
    tokens: NDArray[np.int64]
    documents: NDArray[np.int64]


class _TokenFile:
    """One file in the making: tokens and document starts in one raw file each."""

    def __init__(self, scratch: Path, dtype: DTypeLike) -> None:
        self._paths = {name: scratch / f"writing.{name}" for name in ("tokens", "document_starts")}
        self._streams = {name: path.open("wb") for name, path in self._paths.items()}
        self._dtypes: dict[str, DTypeLike] = {"tokens": dtype, "document_starts": np.int64}
        self._sizes = {"tokens": 0, "document_starts": 0}

    @property
    def tokens(self) -> int:
        return self._sizes["tokens"]

    def add(self, name: str, values: NDArray[Any]) -> None:
        self._streams[name].write(values.astype(self._dtypes[name], copy=False).tobytes())
        self._sizes[name] += len(values)

    def finish(self, path: Path) -> None:
        for stream in self._streams.values():
            stream.close()
        write_raw(
            path,
            {
                name: (raw, self._dtypes[name], (self._sizes[name],))
                for name, raw in self._paths.items()
            },
        )  # fmt: skip
        for raw in self._paths.values():
            raw.unlink()


def write_rows(
    packed: Iterable[Pieces],
    pools: Sequence[DocumentPool],
    sources: Sequence[TokenizedSource],
    row_length: int,
    padding: int,
    folder: Path,
    scratch: Path,
    advance: Callable[[int], None] = lambda _: None,
    file_tokens: int = FILE_TOKENS,
) -> WrittenRows:
    """Write packed rows as ``tokens-00000.safetensors`` ...

    ``document_starts`` of a file are the positions where a document, a piece of one that does not continue
    the token before it, or padding begins.

    Args:
        packed: the rows as pieces of documents.
        pools: where the documents come from.
        sources: the tokenised sources.
        row_length: tokens of a row.
        padding: the token that fills rows.
        folder: takes the files.
        scratch: for files in the making.
        advance: called with the number of tokens written.
        file_tokens: about how many tokens a file takes.
    """
    written = WrittenRows([], 0, np.zeros(len(pools), np.int64), np.zeros(len(pools), np.int64))
    rows_per_file = max(1, file_tokens // row_length)
    file: _TokenFile | None = None
    for pieces in packed:
        pool_of = pieces.draw.pool[pieces.document]
        written.tokens += np.bincount(pool_of, pieces.length, len(pools)).astype(np.int64)
        written.documents += np.bincount(pool_of[pieces.start == 0], minlength=len(pools))
        done = 0
        while done < pieces.rows:
            in_file = written.rows % rows_per_file
            count = min(
                pieces.rows - done, rows_per_file - in_file, max(1, SLICE_TOKENS // row_length)
            )  # fmt: skip
            if file is None:
                file = _TokenFile(scratch, sources[0].dtype)
            tokens, starts = _gather(pieces, done, done + count, pools, sources, row_length, padding)
            file.add("document_starts", starts + file.tokens)
            file.add("tokens", tokens)
            advance(len(tokens))
            done += count
            written.rows += count
            if written.rows % rows_per_file == 0:
                file = _finish(file, folder, written)
    if file is not None:
        _finish(file, folder, written)
    return written


def _finish(file: _TokenFile, folder: Path, written: WrittenRows) -> None:
    name = f"tokens-{len(written.files):05d}.safetensors"
    file.finish(folder / name)
    written.files.append(name)


def _gather(
    pieces: Pieces,
    first: int,
    last: int,
    pools: Sequence[DocumentPool],
    sources: Sequence[TokenizedSource],
    row_length: int,
    padding: int,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Rows ``first`` to ``last`` as flat tokens, and the positions where a document, a piece or padding begins."""
    low, high = np.searchsorted(pieces.row, [first, last])
    row, length = pieces.row[low:high] - first, pieces.length[low:high]
    ends = np.cumsum(length)
    in_row = np.bincount(row, length, last - first).astype(np.int64)
    before_row = np.concatenate([[0], np.cumsum(in_row)])[:-1]
    places = row * row_length + (ends - length) - before_row[row]
    tokens = np.full((last - first) * row_length, padding, dtype=sources[0].dtype)
    document = pieces.document[low:high]
    begins = pieces.draw.begin[document] + pieces.start[low:high]
    source_of = np.array([pool.source for pool in pools])[pieces.draw.pool[document]]
    for position, source, begin, count in zip(
        places.tolist(), source_of.tolist(), begins.tolist(), length.tolist(), strict=True
    ):
        tokens[position : position + count] = sources[source].read(begin, count)
    short = np.flatnonzero(in_row < row_length)
    starts = np.concatenate([places[pieces.new[low:high]], short * row_length + in_row[short]])
    return tokens, np.sort(starts)
