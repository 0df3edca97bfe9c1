"""Bootstrap intervals of means, and paired tests.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile interval, chapter 13,
and permutation test, chapter 15; Phipson and Smyth, "Permutation p-values should never be zero" (2010);
McNemar's test in its exact binomial form. Every resampling is a pure function of its seed (PCG64).
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Hashable, Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval

Floats = NDArray[np.float64]
_DRAWS_PER_BLOCK = 1 << 22
_MAX_EXACT = 12


def student_mean(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of a few independent values with Student's t interval; NaN ends for a single value.

    Args:
        values: one number per run.
        level: of the interval.

    Raises:
        InputError: no values.
    """
    from scipy.stats import t

    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        raise InputError("no values to take a mean of")
    mean = float(numbers.mean())
    if len(numbers) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(t.ppf((1 + level) / 2, len(numbers) - 1) * numbers.std(ddof=1) / len(numbers) ** 0.5)
    return Interval(mean, mean - half, mean + half)


def bootstrap_mean(
    values: ArrayLike,
    *,
    seed: int,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Mean with a percentile bootstrap interval.

    Args:
        values: one number per item.
        seed: of the resampling.
        clusters: a key per item; clusters are then resampled, since items of one cluster (an entity, an
            image) are not independent.
        resamples: number of bootstrap samples.
        level: coverage of the interval.

    Raises:
        InputError: there is no value, or the keys do not fit the values.
    """
    numbers = _numbers(values)
    if clusters is None:
        sums, sizes = numbers, np.ones(len(numbers))
    else:
        sums, sizes = _cluster_sums(numbers, clusters)
    means = np.concatenate(
        [sums[draw].sum(1) / sizes[draw].sum(1) for draw in bootstrap_indices(len(sums), resamples, seed)]
    )
    return percentile_interval(float(numbers.mean()), means, level)


def bootstrap_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int,
    clusters: Sequence[Hashable] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Mean of ``first - second`` over the same items, with a paired bootstrap interval.

    Raises:
        InputError: there is no item, or the lengths differ.
    """
    difference = _difference(first, second)
    return bootstrap_mean(difference, seed=seed, clusters=clusters, resamples=resamples, level=level)


def permutation_test(first: ArrayLike, second: ArrayLike, *, seed: int, resamples: int = 10_000) -> float:
    """Two-sided p-value of the paired permutation (sign flip) test of equal means.

    Exact over all sign patterns for up to twelve differing pairs, otherwise ``(1 + hits) / (1 + resamples)``.

    Raises:
        InputError: there is no item, or the lengths differ.
    """
    difference = _difference(first, second)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    observed = abs(difference.sum())
    # The same sum in another order may differ by rounding; such a tie counts as a hit.
    reached = observed - 1e-12 * np.abs(difference).sum()
    if len(difference) <= _MAX_EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(difference))))
        return float(np.mean(np.abs(signs @ difference) >= reached))
    generator = np.random.Generator(np.random.PCG64(seed))
    hits = 0
    for count in _chunks(resamples, len(difference)):
        signs = generator.integers(0, 2, size=(count, len(difference)), dtype=np.int8) * 2.0 - 1.0
        hits += int((np.abs(signs @ difference) >= reached).sum())
    return (1 + hits) / (1 + resamples)


def mcnemar_exact(first: ArrayLike, second: ArrayLike) -> float:
    """Two-sided exact McNemar p-value for two models' right and wrong answers to the same items.

    Raises:
        InputError: there is no item, the lengths differ, or a score is neither 0 nor 1.
    """
    difference = _difference(first, second)
    if not np.isin(_numbers(first), (0, 1)).all() or not np.isin(_numbers(second), (0, 1)).all():
        raise InputError(
            "McNemar's test needs right-or-wrong scores (0 or 1)", hint="use the permutation test"
        )
    wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
    if not wins + losses:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def bootstrap_indices(items: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Bootstrap samples of row indices in blocks of shape ``[resamples of the block, items]``, ``resamples`` in total."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for count in _chunks(resamples, items):
        yield generator.integers(0, items, size=(count, items))


def percentile_interval(value: float, replicates: Floats, level: float) -> Interval:
    """A value with the central quantiles of its bootstrap replicates; NaN replicates are ignored."""
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must be between 0 and 1, got {level}")
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return Interval(value, float("nan"), float("nan"))
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _chunks(total: int, width: int) -> Iterator[int]:
    size = max(1, _DRAWS_PER_BLOCK // max(width, 1))
    for start in range(0, total, size):
        yield min(size, total - start)


def _numbers(values: ArrayLike) -> Floats:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if not len(numbers):
        raise InputError("there is no value to average", hint="is the benchmark or the selection empty?")
    return numbers


def _difference(first: ArrayLike, second: ArrayLike) -> Floats:
    x, y = _numbers(first), _numbers(second)
    if len(x) != len(y):
        raise InputError(f"a paired comparison needs the same items, got {len(x)} and {len(y)}")
    return x - y


def _cluster_sums(numbers: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    if len(clusters) != len(numbers):
        raise InputError(f"{len(clusters)} cluster keys for {len(numbers)} values")
    row = {key: index for index, key in enumerate(dict.fromkeys(clusters))}
    group = np.array([row[key] for key in clusters])
    sums = np.bincount(group, weights=numbers).astype(np.float64)
    return sums, np.bincount(group).astype(np.float64)
