"""Packing: documents into rows of fixed length, with what is lost by it counted.

- ``concat``: documents follow one another and are cut where a row ends; nothing is lost but the tail.
- ``best-fit-crop``: every row begins with a document; the longest one that still fits is taken, and
  where none fits, one is cropped to fill the row: no padding, but the cropped ends are discarded.
- ``best-fit-decreasing``: documents (in pieces of at most a row) go to the fullest row that holds
  them (Ding et al., arXiv 2404.10830): nothing is discarded, rows are padded.

Both best fits keep documents (or rows) of one length in one bucket and the lengths that occur in a sorted
list of at most a row's length, so a document costs a binary search.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.data.corpus.mixing import DrawnDocuments, concatenated

Packing = Literal["concat", "best-fit-crop", "best-fit-decreasing"]

WINDOW_DOCUMENTS = 1 << 16
WINDOW_ROWS = 1 << 14
"""Documents, or rows of tokens, packed together by the best fits; bounds memory, keeps the mixture local."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents in the order of their rows; all arrays are int64 ``[pieces]``.

    Attributes:
        document: which document of ``draw``.
        start: where in the document the stretch begins.
        length: its tokens.
        row: its row, from 0; rows have no gaps.
        rows: how many rows.
        draw: the documents.
        new: bool, whether the stretch begins a document in the file: the token before it in the file
            is not the one before it in the document.
    """

    document: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    row: NDArray[np.int64]
    rows: int
    draw: DrawnDocuments
    new: NDArray[np.bool_]


def pack(draws: Iterable[DrawnDocuments], row_length: int, packing: Packing) -> Iterator[Pieces]:
    """Pack a stream of documents into rows.

    Args:
        draws: documents in order, each of at least one token.
        row_length: tokens of a row.
        packing: see the module's text.

    Yields:
        Whole rows. Those of ``concat`` and ``best-fit-crop`` are full; those of ``best-fit-decreasing``
        may be shorter and are to be padded. A rest that does not fill a row is dropped by the first
        two: of the full stream by ``concat``, of a window of documents by ``best-fit-crop``.
    """
    windows = _windows(draws, row_length)
    if packing == "concat":
        yield from _concat(windows, row_length)
        return
    fit = _crop if packing == "best-fit-crop" else _decreasing
    for window in windows:
        columns = fit(window.length.tolist(), row_length)
        if columns:
            document, start, length, row = np.array(columns, dtype=np.int64).T
            new = np.ones(len(row), dtype=bool)
            yield Pieces(document, start, length, row, int(row[-1]) + 1, window, new)


def _windows(draws: Iterable[DrawnDocuments], row_length: int) -> Iterator[DrawnDocuments]:
    """Regroup: a window ends with so many documents, or with the document that reaches so many tokens."""
    tokens = row_length * WINDOW_ROWS
    waiting = concatenated([])
    for drawn in draws:
        waiting = concatenated([waiting, drawn])
        while True:
            reached = int(np.searchsorted(np.cumsum(waiting.length), tokens)) + 1
            count = min(reached, WINDOW_DOCUMENTS)
            if len(waiting) < count:
                break
            yield waiting[:count]
            waiting = waiting[count:]
    if len(waiting):
        yield waiting


def _concat(windows: Iterable[DrawnDocuments], row_length: int) -> Iterator[Pieces]:
    """Cut the stream at every row's end; an unfilled row is carried to the next window."""
    rest, offset = (
        concatenated([]),
        0,
    )  # the unfilled row's documents; how much of the first is written already
    for window in windows:
        some = concatenated([rest, window])
        ends = np.cumsum(some.length) - offset
        rows = int(ends[-1]) // row_length
        cuts = np.arange(1, rows + 1) * row_length
        begins = np.concatenate([[0], np.union1d(ends, cuts)])
        begins = begins[begins < rows * row_length]
        document = np.searchsorted(ends, begins, side="right")
        firsts = np.concatenate([[-offset], ends[:-1]])
        start = begins - firsts[document]
        length = np.diff(begins, append=rows * row_length)
        if rows:
            yield Pieces(document, start, length, begins // row_length, rows, some, start == 0)
        done = int(np.searchsorted(ends, rows * row_length, side="right"))
        offset = rows * row_length - int(firsts[done]) if done < len(some) else 0
        rest = some[done:]


def _crop(lengths: list[int], row_length: int) -> list[tuple[int, int, int, int]]:
    """Rows as ``(document, start, length, row)``: the longest that fits, else the shortest, cropped."""
    buckets: dict[int, list[int]] = {}
    for document in reversed(range(len(lengths))):
        buckets.setdefault(min(lengths[document], row_length + 1), []).append(document)
    sizes = sorted(buckets)
    if sizes and sizes[-1] > row_length:  # these never fit; of these, too, the shortest is cropped first
        buckets[sizes[-1]].sort(key=lambda document: (-lengths[document], -document))
    pieces: list[tuple[int, int, int, int]] = []
    row = 0
    while sizes:
        taken: list[Pair] = []
        room = row_length
        while room and sizes:
            index = max(bisect.bisect_right(sizes, room) - 1, 0)
            bucket = buckets[sizes[index]]
            document = bucket.pop()
            if not bucket:
                del sizes[index]
            taken.append((document, min(lengths[document], room)))
            room -= taken[-1][1]
        if room == 0:
            pieces.extend((document, 0, length, row) for document, length in taken)
            row += 1
    return pieces


def _decreasing(lengths: list[int], row_length: int) -> list[tuple[int, int, int, int]]:
    """Rows as ``(document, start, length, row)``: longest first, each to the fullest row that holds it."""
    pieces = [
        (min(length - start, row_length), document, start)
        for document, length in enumerate(lengths)
        for start in range(0, length, row_length)
    ]
    pieces.sort(key=lambda piece: (-piece[0], piece[1], piece[2]))
    rows: list[list[tuple[int, int, int]]] = []
    buckets: dict[int, list[int]] = {}  # room -> rows with so much room
    rooms: list[int] = []  # the rooms that occur, rising
    for piece in pieces:
        length = piece[0]
        index = bisect.bisect_left(rooms, length)
        if index == len(rooms):
            room, row = row_length, len(rows)
            rows.append([])
        else:
            room = rooms[index]
            bucket = buckets[room]
            row = bucket.pop()
            if not bucket:
                del rooms[index], buckets[room]
        rows[row].append(piece)
        left = room - length
        if left:
            if left not in buckets:
                buckets[left] = []
                bisect.insort(rooms, left)
            buckets[left].append(row)
    return [
        (document, start, length, number)
        for number, row in enumerate(rows)
        for length, document, start in row
    ]
