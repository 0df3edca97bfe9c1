from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.data.packing import Packing, Row, pack

documents = st.lists(st.integers(1, 70), max_size=60)
row_lengths = st.integers(1, 24)


def tokens(rows: list[Row]) -> Counter[tuple[int, int]]:
    return Counter(
        (piece.document, at) for row in rows for piece in row for at in range(piece.start, piece.stop)
    )


@given(documents, row_lengths)
def test_concat_loses_nothing_but_the_tail(lengths: list[int], row: int) -> None:
    rows = list(pack(lengths, row, "concat"))
    flat = [(p.document, at) for r in rows for p in r for at in range(p.start, p.stop)]
    everything = [(number, at) for number, length in enumerate(lengths) for at in range(length)]
    assert flat == everything[: len(everything) // row * row]
    assert all(sum(piece.length for piece in r) == row for r in rows)


@given(documents, row_lengths)
def test_best_fit_decreasing_loses_nothing_and_overfills_nothing(lengths: list[int], row: int) -> None:
    rows = list(pack(lengths, row, "best-fit-decreasing"))
    assert tokens(rows) == Counter((n, at) for n, length in enumerate(lengths) for at in range(length))
    assert all(0 < sum(piece.length for piece in r) <= row for r in rows)


@given(documents, row_lengths)
def test_best_fit_decreasing_needs_at_most_twice_the_rows_of_a_perfect_packing(
    lengths: list[int], row: int
) -> None:
    rows = list(pack(lengths, row, "best-fit-decreasing"))
    assert len(rows) <= 2 * -(-sum(lengths) // row)


@given(documents, row_lengths)
def test_best_fit_crop_fills_rows_with_beginnings_of_documents(lengths: list[int], row: int) -> None:
    rows = list(pack(lengths, row, "best-fit-crop"))
    assert all(sum(piece.length for piece in r) == row for r in rows)
    assert all(piece.start == 0 and piece.stop <= lengths[piece.document] for r in rows for piece in r)
    used = [piece.document for r in rows for piece in r]
    assert len(used) == len(set(used))
    cropped = [p for r in rows for p in r if p.length < lengths[p.document]]
    assert all(sum(p in cropped for p in r) <= 1 for r in rows)


def test_best_fit_crop_takes_the_longest_that_fits_and_crops_the_shortest() -> None:
    (row,) = pack([3, 5, 9, 4], 10, "best-fit-crop")
    assert [(piece.document, piece.length) for piece in row] == [(2, 9), (0, 1)]


def test_best_fit_decreasing_by_hand() -> None:
    rows = list(pack([6, 4, 5, 3, 2], 10, "best-fit-decreasing"))
    assert [[piece.document for piece in row] for row in rows] == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize("packing", ["concat", "best-fit-crop", "best-fit-decreasing"])
def test_no_documents_give_no_rows(packing: Packing) -> None:
    assert list(pack([], 8, packing)) == []
