"""Rank correlations against scipy, their controls, intervals and bins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.correlation import (
    correlation_interval,
    equal_count_bins,
    kendall,
    partial_spearman,
    spearman,
)

pairs = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=40)


@given(pairs)
def test_equal_scipy_ties_included(values):
    x, y = np.array(values, dtype=float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert math.isnan(spearman(x, y).coefficient)
        assert math.isnan(kendall(x, y).coefficient)
        return
    for ours, theirs in (
        (spearman(x, y), scipy.stats.spearmanr(x, y)),
        (kendall(x, y), scipy.stats.kendalltau(x, y)),
    ):
        assert ours.coefficient == pytest.approx(theirs.statistic, abs=1e-12)
        assert ours.p_value == pytest.approx(theirs.pvalue, abs=1e-6)


def test_a_common_cause_is_removed():
    generator = np.random.default_rng(0)
    cause = generator.normal(size=500)
    x, y = cause + 0.5 * generator.normal(size=500), cause + 0.5 * generator.normal(size=500)
    assert spearman(x, y).coefficient > 0.7
    assert abs(partial_spearman(x, y, [cause]).coefficient) < 0.12


def test_partial_equals_the_recursion_formula():
    generator = np.random.default_rng(1)
    z = generator.normal(size=60)
    x, y = z + generator.normal(size=60), z - generator.normal(size=60)
    xy, xz, yz = (spearman(*p).coefficient for p in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_spearman(x, y, [z]).coefficient == pytest.approx(expected, abs=1e-12)


def test_a_control_equal_to_x_leaves_nothing():
    x = np.arange(20.0)
    assert math.isnan(partial_spearman(x, x[::-1] ** 2, [x]).coefficient)


@pytest.mark.parametrize("method", ["spearman", "kendall"])
def test_interval(method):
    generator = np.random.default_rng(0)
    x = generator.normal(size=80)
    y = x + generator.normal(size=80)
    interval = correlation_interval(x, y, seed=0, method=method, resamples=200)
    assert 0 < interval.low < interval.value < interval.high < 1
    assert correlation_interval(x, y, seed=0, method=method, resamples=200) == interval


def test_a_monotone_relation_is_certain():
    x = np.arange(30.0)
    interval = correlation_interval(x, -(x**3), seed=0)
    assert (interval.value, interval.low, interval.high) == pytest.approx((-1, -1, -1))
    assert spearman(x, -(x**3)).p_value < 1e-12


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=3, max_size=40), st.integers(1, 3))
def test_bins_share_the_items(values, count):
    x, y = np.array(values).T
    bins = equal_count_bins(x, y, count, seed=0, resamples=20)
    assert sum(one.count for one in bins) == len(x)
    assert max(one.count for one in bins) - min(one.count for one in bins) <= 1
    assert all(before.high <= after.low for before, after in itertools.pairwise(bins))
    assert sum(one.count * one.y.value for one in bins) == pytest.approx(y.sum(), abs=1e-9)


def test_problems_are_named():
    with pytest.raises(InputError, match="pairs"):
        spearman([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="at least three"):
        kendall([1, 2], [1, 2])
    with pytest.raises(InputError, match="too few"):
        partial_spearman([1, 2, 3], [3, 1, 2], [[1, 2, 3]])
    with pytest.raises(InputError, match="4 bins"):
        equal_count_bins([1, 2, 3], [1, 2, 3], 4, seed=0)


@pytest.mark.parametrize("levels", [3, 1000])
def test_resampled_kendall_equals_scipy_on_every_resample(levels, monkeypatch):
    from priorkit.scoring.statistics import correlation
    from priorkit.scoring.statistics.intervals import bootstrap_indices

    generator = np.random.default_rng(4)
    x, y = generator.integers(0, levels, 40).astype(float), generator.integers(0, levels, 40).astype(float)
    found = correlation._resampled_kendall(x, y, 50, 7)
    draws = [row for block in bootstrap_indices(40, 50, 7) for row in block]
    expected = [scipy.stats.kendalltau(x[draw], y[draw]).statistic for draw in draws]
    assert found == pytest.approx(expected, abs=1e-12)
    monkeypatch.setattr(correlation, "_MAX_ITEMS_IN_MATRIX", 10)
    assert correlation._resampled_kendall(x, y, 50, 7) == pytest.approx(expected, abs=1e-12)
