from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from priorkit.data.conversations.sample_packing import COARSE, FINE, WASTE, into_rows, rounded


@given(st.lists(st.integers(1, 700), min_size=1, max_size=40), st.sampled_from([FINE, COARSE]))
def test_every_sample_is_completely_in_one_row(lengths: list[int], per_octave: int) -> None:
    rows, length = into_rows(lengths, per_octave)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[place] for place in row) <= length for row in rows)
    total = sum(lengths)
    assert len(rows) * length <= max(rounded(total, per_octave), total / (1 - WASTE) + 1)


@given(st.integers(1, 1 << 20), st.sampled_from([FINE, COARSE]))
def test_row_lengths_are_few_and_near(length: int, per_octave: int) -> None:
    found = rounded(length, per_octave)
    assert length <= found < length + max(8, 2 * length / per_octave)
    assert rounded(found, per_octave) == found


def test_few_lengths_between_powers_of_two() -> None:
    for per_octave in (FINE, COARSE):
        assert len({rounded(length, per_octave) for length in range(1025, 2049)}) == per_octave


def test_waste_on_log_normal_lengths_stays_under_five_percent() -> None:
    generator = np.random.default_rng(0)
    for batch in (8, 16, 64):
        used = total = 0
        for _ in range(100):
            lengths = np.clip(np.exp(generator.normal(np.log(60), 0.8, batch)), 8, 400).astype(int) + 65
            rows, length = into_rows(lengths.tolist())
            used += int(lengths.sum())
            total += len(rows) * length
        assert used / total > 0.95


def test_short_rows_are_preferred_where_they_waste_nothing() -> None:
    assert into_rows([64] * 8) == ([[n] for n in range(8)], 64)
    rows, length = into_rows([32, 32, 64, 64])
    assert (len(rows), length) == (3, 64)
