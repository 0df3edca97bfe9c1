from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from priorkit.data.shuffling import permute, sample_ids


@given(count=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_bijection(count: int, key: int) -> None:
    assert sorted(permute(np.arange(count), count, key).tolist()) == list(range(count))


def test_permutations_differ_by_key_and_are_no_rotation() -> None:
    one, other = permute(np.arange(1000), 1000, 1), permute(np.arange(1000), 1000, 2)
    assert (one != other).mean() > 0.98
    assert len(np.unique(np.diff(one))) > 500


def test_a_position_is_found_among_billions_without_memory() -> None:
    count = 10**12 + 7
    found = permute(np.array([0, count - 1, 12345]), count, 3)
    assert len(set(found.tolist())) == 3
    assert found.max() < count


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 40),
    start=st.integers(0, 200),
    lengths=st.lists(st.integers(0, 50), max_size=4),
)
def test_a_stream_is_the_same_however_it_is_cut(
    seed: int, count: int, start: int, lengths: list[int]
) -> None:
    stops = np.cumsum([start, *lengths]).tolist()
    whole = sample_ids(seed, start, stops[-1], count)
    parts = [sample_ids(seed, a, b, count) for a, b in itertools.pairwise(stops)]
    assert np.array_equal(np.concatenate([*parts, whole[:0]]), whole)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), epoch=st.integers(0, 5))
def test_every_epoch_visits_every_sample_once(seed: int, count: int, epoch: int) -> None:
    ids = sample_ids(seed, epoch * count, (epoch + 1) * count, count)
    assert sorted(ids.tolist()) == list(range(count))


def test_epochs_have_different_orders() -> None:
    assert not np.array_equal(sample_ids(1, 0, 50, 50), sample_ids(1, 50, 100, 50))
