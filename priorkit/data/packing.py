"""Packing: documents into rows of fixed length, with what is lost by it counted.

- ``concat``: documents follow one another and are cut where a row ends; nothing is lost but the tail.
- ``best-fit-crop``: every row begins with a document; the longest one that still fits is taken, and
  where none fits, one is cropped to fill the row: no padding, but the cropped ends are discarded.
- ``best-fit-decreasing``: documents (in pieces of at most a row) go to the fullest row that holds
  them (Ding et al., arXiv 2404.10830): nothing is discarded, rows are padded.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Packing = Literal["concat", "best-fit-crop", "best-fit-decreasing"]

WINDOW = 1000
"""Documents looked at together by the best-fit packings; bounds memory and keeps the mixture local."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``start`` to ``stop`` of document ``document`` (its place in the stream)."""

    document: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of tokens."""
        return self.stop - self.start


Row = list[Piece]


def pack(lengths: Sequence[int], row_length: int, packing: Packing) -> Iterator[Row]:
    """Pack a stream of documents into rows.

    Args:
        lengths: tokens of each document, in order; each at least 1.
        row_length: tokens of a row.
        packing: see the module's text.

    Yields:
        Rows as pieces. ``concat`` and ``best-fit-crop`` rows are full; ``best-fit-decreasing`` rows may
        be shorter and are to be padded. A last row that cannot be filled is dropped by the first two.
    """
    if packing == "concat":
        yield from _concat(lengths, row_length)
        return
    fit = _crop_window if packing == "best-fit-crop" else _decreasing_window
    for first in range(0, len(lengths), WINDOW):
        documents = range(first, min(first + WINDOW, len(lengths)))
        yield from fit([(lengths[number], number) for number in documents], row_length)


def _concat(lengths: Sequence[int], row_length: int) -> Iterator[Row]:
    row: Row = []
    room = row_length
    for document, length in enumerate(lengths):
        start = 0
        while start < length:
            stop = min(length, start + room)
            row.append(Piece(document, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield row
                row, room = [], row_length


def _crop_window(waiting: list[tuple[int, int]], row_length: int) -> Iterator[Row]:
    waiting = sorted(waiting)
    while waiting:
        row: Row = []
        room = row_length
        while room and waiting:
            place = bisect.bisect_right(waiting, (room, 1 << 62)) - 1
            # Where none fits, the shortest is cropped: it loses the fewest tokens.
            length, document = waiting.pop(max(place, 0))
            row.append(Piece(document, 0, min(length, room)))
            room -= min(length, room)
        if room == 0:
            yield row


def _decreasing_window(waiting: list[tuple[int, int]], row_length: int) -> Iterator[Row]:
    pieces = [
        Piece(document, start, min(length, start + row_length))
        for length, document in waiting
        for start in range(0, length, row_length)
    ]
    pieces.sort(key=lambda piece: (-piece.length, piece.document, piece.start))
    rows: list[Row] = []
    open_rows: list[tuple[int, int]] = []  # (room, row number), sorted: the fullest that fits comes first
    for piece in pieces:
        place = bisect.bisect_left(open_rows, (piece.length, -1))
        if place == len(open_rows):
            rows.append([piece])
            bisect.insort(open_rows, (row_length - piece.length, len(rows) - 1))
        else:
            room, number = open_rows.pop(place)
            rows[number].append(piece)
            bisect.insort(open_rows, (room - piece.length, number))
    yield from rows
