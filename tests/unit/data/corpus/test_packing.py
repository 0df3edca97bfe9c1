from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.data.corpus import packing as packing_module
from priorkit.data.corpus.packing import Packing, pack
from tests.support.token_sources import stream

documents = st.lists(st.integers(1, 70), max_size=60)
row_lengths = st.integers(1, 24)


class Piece(NamedTuple):
    document: int
    start: int
    length: int
    new: bool


Row = list[Piece]


def rows_of(lengths: list[int], row_length: int, packing: Packing, block: int = 7) -> list[Row]:
    """The rows, the documents fed ``block`` at a time."""
    complete = stream(lengths)
    draws = [complete[start : start + block] for start in range(0, len(lengths), block)]
    rows: list[Row] = []
    for pieces in pack(draws, row_length, packing):
        some: list[Row] = [[] for _ in range(pieces.rows)]
        assert (np.diff(pieces.row) >= 0).all()
        names = pieces.draw.document[pieces.document]
        for row, *piece in zip(pieces.row, names, pieces.start, pieces.length, pieces.new, strict=True):
            some[row].append(Piece(*(int(value) for value in piece[:3]), bool(piece[3])))
        rows.extend(some)
    return rows


def tokens(rows: list[Row]) -> Counter[tuple[int, int]]:
    return Counter((p.document, at) for row in rows for p in row for at in range(p.start, p.start + p.length))


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths, st.integers(1, 9))
def test_concat_loses_nothing_but_the_tail(lengths: list[int], row: int, block: int) -> None:
    rows = rows_of(lengths, row, "concat", block)
    flat = [(p.document, at) for r in rows for p in r for at in range(p.start, p.start + p.length)]
    everything = [(number, at) for number, length in enumerate(lengths) for at in range(length)]
    assert flat == everything[: len(everything) // row * row]
    assert all(sum(piece.length for piece in r) == row for r in rows)
    assert all(piece.new == (piece.start == 0) for r in rows for piece in r)


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths)
def test_windows_do_not_show_in_concat(lengths: list[int], row: int) -> None:
    whole = rows_of(lengths, row, "concat")
    before = packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS
    packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS = 3, 2
    try:
        assert rows_of(lengths, row, "concat") == whole
    finally:
        packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS = before


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths)
def test_best_fit_decreasing_loses_nothing_and_overfills_nothing(lengths: list[int], row: int) -> None:
    rows = rows_of(lengths, row, "best-fit-decreasing")
    assert tokens(rows) == Counter((n, at) for n, length in enumerate(lengths) for at in range(length))
    assert all(0 < sum(piece.length for piece in r) <= row for r in rows)
    assert all(piece.new for r in rows for piece in r)


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths)
def test_windows_lose_nothing_of_best_fit_decreasing(lengths: list[int], row: int) -> None:
    before = packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS
    packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS = 5, 2
    try:
        rows = rows_of(lengths, row, "best-fit-decreasing")
    finally:
        packing_module.WINDOW_DOCUMENTS, packing_module.WINDOW_ROWS = before
    assert tokens(rows) == Counter((n, at) for n, length in enumerate(lengths) for at in range(length))


def plain_decreasing(lengths: list[int], row: int) -> list[list[tuple[int, int]]]:
    """Best fit decreasing by looking at every row for every piece."""
    pieces = [(n, s, min(row, size - s)) for n, size in enumerate(lengths) for s in range(0, size, row)]
    rows: list[tuple[int, list[int]]] = []
    for _, _, length in sorted(pieces, key=lambda piece: -piece[2]):
        fits = [(room, number) for number, (room, _) in enumerate(rows) if room >= length]
        if fits:
            room, number = min(fits)
            rows[number] = room - length, [*rows[number][1], length]
        else:
            rows.append((row - length, [length]))
    return sorted(sorted(lengths_of_row) for _, lengths_of_row in rows)


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths)
def test_best_fit_decreasing_fills_rows_like_the_plain_algorithm(lengths: list[int], row: int) -> None:
    rows = rows_of(lengths, row, "best-fit-decreasing")
    filled = Counter(sum(piece.length for piece in r) for r in rows)
    assert filled == Counter(sum(lengths_of_row) for lengths_of_row in plain_decreasing(lengths, row))


@settings(deadline=None, max_examples=60)
@given(documents, row_lengths)
def test_best_fit_crop_fills_rows_with_beginnings_of_documents(lengths: list[int], row: int) -> None:
    rows = rows_of(lengths, row, "best-fit-crop")
    assert all(sum(piece.length for piece in r) == row for r in rows)
    assert all(piece.start == 0 and piece.length <= lengths[piece.document] for r in rows for piece in r)
    used = [piece.document for r in rows for piece in r]
    assert len(used) == len(set(used))
    cropped = [p for r in rows for p in r if p.length < lengths[p.document]]
    assert all(sum(p in cropped for p in r) <= 1 for r in rows)
    # What is in no row: the cropped ends and less than one row at the end.
    lost = sum(lengths) - row * len(rows) - sum(lengths[p.document] - p.length for p in cropped)
    assert sum(lengths[n] for n in set(range(len(lengths))) - set(used)) == lost
    assert sum(min(lengths[n], row) for n in set(range(len(lengths))) - set(used)) < row


def test_best_fit_crop_takes_the_longest_that_fits_and_crops_the_shortest() -> None:
    (row,) = rows_of([3, 5, 9, 4], 10, "best-fit-crop")
    assert [(piece.document, piece.length) for piece in row] == [(2, 9), (0, 1)]
    rows = rows_of([30, 20, 25], 10, "best-fit-crop")
    assert [[piece.document for piece in row] for row in rows] == [[1], [2], [0]]


def test_best_fit_decreasing_by_hand() -> None:
    rows = rows_of([6, 4, 5, 3, 2], 10, "best-fit-decreasing")
    assert [[piece.document for piece in row] for row in rows] == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize("packing", ["concat", "best-fit-crop", "best-fit-decreasing"])
def test_no_documents_give_no_rows(packing: Packing) -> None:
    assert rows_of([], 8, packing) == []
