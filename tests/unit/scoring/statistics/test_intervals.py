"""Bootstrap intervals and paired tests: closed forms, coverage, determinism."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.intervals import (
    bootstrap_difference,
    bootstrap_mean,
    mcnemar_exact,
    permutation_test,
)

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=30)


@given(numbers, st.integers(0, 100))
def test_an_interval_contains_the_mean_and_is_within_the_range(values, seed):
    interval = bootstrap_mean(values, seed=seed, resamples=200)
    assert interval.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert bootstrap_mean(values, seed=seed, resamples=200) == interval


def test_width_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=2000)
    interval = bootstrap_mean(values, seed=1, resamples=4000)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 2000**0.5, rel=0.05)


def test_coverage_is_near_its_level():
    generator = np.random.default_rng(0)
    samples = [bootstrap_mean(generator.normal(size=80), seed=i, resamples=300) for i in range(400)]
    assert np.mean([sample.low <= 0 <= sample.high for sample in samples]) == pytest.approx(0.95, abs=0.04)


def test_clusters_widen_the_interval():
    cluster_values = np.random.default_rng(0).normal(size=50)
    values, keys = np.repeat(cluster_values, 20), [key for key in range(50) for _ in range(20)]
    plain, clustered = bootstrap_mean(values, seed=0), bootstrap_mean(values, seed=0, clusters=keys)
    assert plain.value == clustered.value
    assert clustered.high - clustered.low == pytest.approx(20**0.5 * (plain.high - plain.low), rel=0.2)


@given(numbers)
def test_clusters_of_one_change_nothing(values):
    single = bootstrap_mean(values, seed=3, resamples=50, clusters=list(range(len(values))))
    plain = bootstrap_mean(values, seed=3, resamples=50)
    assert (single.low, single.high) == pytest.approx((plain.low, plain.high))


def test_a_constant_shift_has_no_uncertainty():
    values = np.random.default_rng(0).normal(size=30)
    difference = bootstrap_difference(values + 2, values, seed=0)
    assert (difference.value, difference.low, difference.high) == pytest.approx((2, 2, 2))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_small_permutation_tests_are_exact(differences):
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    expected = np.mean([value >= abs(sum(differences)) for value in sums])
    assert permutation_test(differences, [0] * len(differences), seed=0) == pytest.approx(expected)


def test_large_permutation_tests_agree_with_the_t_test():
    from scipy.stats import ttest_rel

    generator = np.random.default_rng(2)
    first = generator.normal(size=60)
    second = first + generator.normal(0.2, 1, size=60)
    p_value = permutation_test(first, second, seed=0)
    assert p_value == pytest.approx(ttest_rel(first, second).pvalue, abs=0.02)
    assert permutation_test(first, second, seed=0) == p_value


def test_mcnemar():
    first, second = [1] * 9 + [0] * 1 + [1] * 5, [0] * 9 + [1] * 1 + [1] * 5
    assert mcnemar_exact(first, second) == pytest.approx(2 * (1 + 10) / 2**10)
    assert mcnemar_exact([1, 0], [1, 0]) == 1
    with pytest.raises(InputError, match="0 or 1"):
        mcnemar_exact([0.5], [1])


def test_problems_are_named():
    with pytest.raises(InputError, match="no value"):
        bootstrap_mean([], seed=0)
    with pytest.raises(InputError, match="same items"):
        permutation_test([1, 2], [1], seed=0)
    with pytest.raises(InputError, match="cluster keys"):
        bootstrap_mean([1, 2], seed=0, clusters=["a"])
    with pytest.raises(InputError, match="level"):
        bootstrap_mean([1, 2], seed=0, level=95)
