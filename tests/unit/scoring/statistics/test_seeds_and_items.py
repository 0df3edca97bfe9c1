"""Intervals over seeds and items: closed forms, degenerate cases, and coverage with three seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.intervals import bootstrap_mean, percentile_interval, student_mean
from priorkit.scoring.statistics.seeds_and_items import (
    jackknife_values,
    seeds_and_items,
    share_of_seeds,
)


def resampled_means(scores: np.ndarray, resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Means of every seed over the same resampled items, ``[resamples, seeds]``; scores are ``[seeds, items]``."""
    items = scores.shape[1]
    return generator.multinomial(items, np.full(items, 1 / items), resamples) @ scores.T / items


def test_one_seed_is_the_plain_bootstrap_over_items() -> None:
    scores = np.random.default_rng(1).random(50)
    draws = np.random.Generator(np.random.PCG64(3)).integers(0, 50, (1000, 50))
    found = seeds_and_items(scores.mean(), [scores.mean()], scores[draws].mean(1)[:, None])
    assert found == bootstrap_mean(scores, seed=3)


def test_without_items_it_is_students_interval_over_seeds() -> None:
    values = [0.4, 0.5, 0.75]
    found = seeds_and_items(np.mean(values), values, np.tile(values, (100, 1)))
    expected = student_mean(values)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_equal_seeds_leave_the_interval_over_items() -> None:
    generator = np.random.default_rng(2)
    one = np.tile(generator.random(80), (3, 1))
    replicates = resampled_means(one, 4000, generator)
    found = seeds_and_items(one.mean(), one.mean(1), replicates)
    half = 1.959964 * replicates[:, 0].std(ddof=1)
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))


def test_it_is_the_classical_interval_of_two_crossed_random_factors() -> None:
    """Clark (1973): variance ``(MS_seeds + MS_items - MS_rest) / (seeds items)``."""
    generator = np.random.default_rng(5)
    seeds, items = 4, 60
    scores = (
        generator.standard_normal((seeds, 1)) + generator.standard_normal(items)
        + 0.5 * generator.standard_normal((seeds, items))
    )  # fmt: skip
    by_seed, by_item, mean = scores.mean(1), scores.mean(0), scores.mean()
    ms_seeds = items * by_seed.var(ddof=1)
    ms_items = seeds * by_item.var(ddof=1)
    ms_rest = ((scores - by_seed[:, None] - by_item + mean) ** 2).sum() / ((seeds - 1) * (items - 1))
    error = math.sqrt((ms_seeds + ms_items - ms_rest) / (seeds * items))
    found = seeds_and_items(mean, by_seed, resampled_means(scores, 20_000, generator))
    shared = (ms_items - ms_rest) / (seeds * items)
    freedom = (seeds - 1) * (1 + seeds * shared / by_seed.var(ddof=1)) ** 2
    assert found.high - mean == pytest.approx(stats.t.ppf(0.975, freedom) * error, rel=0.03)


def test_nothing_varies() -> None:
    found = seeds_and_items(0.5, [0.5, 0.5, 0.5], np.full((10, 3), 0.5))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_share_of_seeds_is_what_items_do_not_explain() -> None:
    generator = np.random.default_rng(6)
    scores = generator.random((3, 200))
    same = np.tile(scores[:1], (3, 1))
    resampled = resampled_means(same, 500, generator)
    assert share_of_seeds(same.mean(1), resampled) == pytest.approx(0)
    assert share_of_seeds([0.1, 0.5, 0.9], np.tile([0.1, 0.5, 0.9], (50, 1))) == pytest.approx(1)
    shifted = same.mean(1) + np.array([-0.1, 0.0, 0.1])
    items = resampled[:, 0].var(ddof=1)
    assert share_of_seeds(shifted, resampled) == pytest.approx((0.01 / 3) / (0.01 / 3 + items))
    assert math.isnan(share_of_seeds([0.5], np.full((10, 1), 0.5)))
    assert math.isnan(share_of_seeds([0.5, 0.5], np.full((10, 2), 0.5)))


def test_what_is_undefined_has_no_ends() -> None:
    found = seeds_and_items(math.nan, [math.nan, 0.1], np.zeros((10, 2)))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    with pytest.raises(InputError, match="do not fit"):
        seeds_and_items(0.5, [], np.zeros((10, 0)))
    with pytest.raises(InputError, match="do not fit"):
        seeds_and_items(0.5, [0.5, 0.6], np.zeros((10, 3)))


def test_jackknife_values_of_a_mean_are_the_values() -> None:
    values = np.array([0.1, 0.4, 0.7])
    without = np.array([np.delete(values, seed).mean() for seed in range(3)])
    assert jackknife_values(values.mean(), without) == pytest.approx(values)


@pytest.mark.parametrize(("between", "item", "rest"), [(1.0, 0.0, 0.3), (0.2, 1.0, 1.0), (0.0, 1.0, 1.0)])
def test_three_seeds_are_covered_and_the_hierarchical_bootstrap_does_not_where_seeds_vary(
    between: float, item: float, rest: float
) -> None:
    generator = np.random.default_rng(11)
    trials, seeds, items = 400, 3, 40
    held = hierarchical = 0
    for _ in range(trials):
        scores = (
            between * generator.standard_normal((seeds, 1)) + item * generator.standard_normal(items)
            + rest * generator.standard_normal((seeds, items))
        )  # fmt: skip
        replicates = resampled_means(scores, 150, generator)
        found = seeds_and_items(float(scores.mean()), scores.mean(1), replicates)
        held += found.low <= 0 <= found.high
        drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), len(replicates)) / seeds
        naive = percentile_interval(0.0, (replicates * drawn).sum(1), 0.95)
        hierarchical += naive.low <= 0 <= naive.high
    assert 0.92 <= held / trials <= 0.99
    if between == 1:
        assert hierarchical / trials < 0.85
