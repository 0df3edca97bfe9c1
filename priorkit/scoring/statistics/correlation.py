"""Rank correlations with intervals, partial correlations, and bins of equal counts.

Sources: Spearman and Kendall (tau-b) as in ``scipy.stats``; the partial Spearman correlation ranks every
variable, removes the controls' ranks by least squares and correlates the residuals (Conover, "Practical
Nonparametric Statistics", 1999). The coefficient with a constant is undefined: NaN.
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_indices, bootstrap_mean, percentile_interval

Floats = NDArray[np.float64]
Method = Literal["spearman", "kendall"]


@dataclass(frozen=True, slots=True)
class Correlation:
    """A coefficient, its two-sided p-value, and the number of pairs."""

    coefficient: float
    p_value: float
    pairs: int


@dataclass(frozen=True, slots=True)
class EqualCountBin:
    """A bin along x; all bins have equal counts.

    Attributes:
        low: smallest x.
        high: largest x.
        count: number of items.
        mean_x: mean x.
        y: mean y with its bootstrap interval.
    """

    low: float
    high: float
    count: int
    mean_x: float
    y: Interval


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Spearman's rho with the t-distribution's p-value.

    Raises:
        InputError: fewer than three pairs, or lengths differ.
    """
    first, second = _paired_arrays(x, y)
    return partial_spearman(first, second, [])


def kendall(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Kendall's tau-b; raises as :func:`spearman`."""
    first, second = _paired_arrays(x, y)
    if _constant(first) or _constant(second):
        return Correlation(math.nan, math.nan, len(first))
    from scipy.stats import kendalltau

    coefficient, p_value = np.asarray(kendalltau(first, second), dtype=np.float64)
    return Correlation(float(coefficient), float(p_value), len(first))


def partial_spearman(x: ArrayLike, y: ArrayLike, controls: Sequence[ArrayLike]) -> Correlation:
    """Spearman's rho between x and y, controlling for other variables.

    Args:
        x: [items].
        y: [items].
        controls: variables [items] to control for, e.g. frequency.

    Returns:
        The coefficient; its p-value has ``items - 2 - len(controls)`` degrees of freedom.

    Raises:
        InputError: too few pairs for the controls, or lengths differ.
    """
    first, second = _paired_arrays(x, y)
    freedom = len(first) - 2 - len(controls)
    if freedom < 1:
        raise InputError(f"{len(first)} items are too few for {len(controls)} controls")
    fixed = [_ranks(_paired_arrays(x, control)[1]) for control in controls]
    design = np.column_stack([np.ones(len(first)), *fixed])
    residuals: list[Floats] = []
    for ranks in (_ranks(first), _ranks(second)):
        weights = np.linalg.lstsq(design, ranks, rcond=None)[0]
        residual = ranks - design @ weights
        # Residuals of a perfect control are rounding errors, not a signal.
        residuals.append(np.where(np.abs(residual).max() < 1e-9 * len(ranks), 0.0, residual))
    coefficient = float(_row_correlations(residuals[0][None], residuals[1][None])[0])
    return Correlation(coefficient, _t_test(coefficient, freedom), len(first))


def correlation_interval(
    x: ArrayLike,
    y: ArrayLike,
    *,
    seed: int,
    method: Method = "spearman",
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """A rank correlation with a percentile interval that resamples items (entities).

    Raises:
        InputError: fewer than three pairs, or lengths differ.
    """
    first, second = _paired_arrays(x, y)
    if method == "kendall":
        value = kendall(first, second).coefficient
        replicates = _resampled_kendall(first, second, resamples, seed)
    else:
        value = spearman(first, second).coefficient
        replicates = np.concatenate(
            [
                _row_correlations(_ranks(first[draw]), _ranks(second[draw]))
                for draw in bootstrap_indices(len(first), resamples, seed)
            ]
        )
    return percentile_interval(value, replicates, level)


_MAX_ITEMS_IN_MATRIX = 4096
"""Items up to which the signs of all pairs are stored: three matrices of 64 MB in float32."""


def _resampled_kendall(x: Floats, y: Floats, resamples: int, seed: int) -> Floats:
    """tau-b of bootstrap samples of the pairs: float64 ``[resamples]``.

    With ``c`` the number of times that each item was drawn and ``s`` the signs of all differences, tau-b is
    ``c'(s_x s_y)c / sqrt(c'|s_x|c  c'|s_y|c)``: the signs are computed once for all resamples.
    """
    if len(x) > _MAX_ITEMS_IN_MATRIX:
        draws = (row for block in bootstrap_indices(len(x), resamples, seed) for row in block)
        return np.array([kendall(x[draw], y[draw]).coefficient for draw in draws])
    signs = [np.sign(values[:, None] - values[None, :]).astype(np.float32) for values in (x, y)]
    forms = (signs[0] * signs[1], np.abs(signs[0]), np.abs(signs[1]))
    coefficients: list[Floats] = []
    for block in bootstrap_indices(len(x), resamples, seed):
        # In slices: the counts of all resamples of many items would not fit in memory.
        for draws in np.array_split(block, max(1, len(block) * len(x) >> 22)):
            offsets = draws + np.arange(len(draws))[:, None] * len(x)
            counts = np.bincount(offsets.ravel(), minlength=len(draws) * len(x)).reshape(len(draws), len(x))
            weights = counts.astype(np.float32)
            # Products of small integers with signs: exact in float32 up to 2^24, far more than the items here.
            agreed, untied_x, untied_y = (
                ((weights @ form).astype(np.float64) * counts).sum(1) for form in forms
            )
            scale = np.sqrt(untied_x * untied_y)
            coefficients.append(np.divide(agreed, scale, out=np.full(len(draws), np.nan), where=scale > 0))
    return np.concatenate(coefficients)


def equal_count_bins(
    x: ArrayLike, y: ArrayLike, bins: int, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> list[EqualCountBin]:
    """Mean y in bins of x with equal counts (up to one), in the order of x.

    Raises:
        InputError: fewer items than bins, fewer than three items, or lengths differ.
    """
    first, second = _paired_arrays(x, y)
    if not 1 <= bins <= len(first):
        raise InputError(f"cannot put {len(first)} items into {bins} bins")
    order = np.argsort(first, kind="stable")
    return [
        EqualCountBin(
            low=float(first[rows[0]]),
            high=float(first[rows[-1]]),
            count=len(rows),
            mean_x=float(first[rows].mean()),
            y=bootstrap_mean(second[rows], seed=seed + index, resamples=resamples, level=level),
        )
        for index, rows in enumerate(np.array_split(order, bins))
    ]


def _paired_arrays(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    first, second = (np.asarray(values, dtype=np.float64).ravel() for values in (x, y))
    if len(first) != len(second):
        raise InputError(f"a correlation needs pairs, got {len(first)} and {len(second)} values")
    if len(first) < 3:
        raise InputError(f"a correlation needs at least three pairs, got {len(first)}")
    return first, second


def _constant(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _ranks(values: Floats) -> Floats:
    """Ranks along the last axis; ties get their mean rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(values, axis=-1), dtype=np.float64)


def _row_correlations(x: Floats, y: Floats) -> Floats:
    """Pearson's r of each row of x with the same row of y."""
    x = x - x.mean(1, keepdims=True)
    y = y - y.mean(1, keepdims=True)
    scale = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    products = (x * y).sum(1)
    return np.divide(products, scale, out=np.full(len(x), np.nan), where=scale > 0).clip(-1, 1)


def _t_test(coefficient: float, freedom: int) -> float:
    if math.isnan(coefficient):
        return math.nan
    if abs(coefficient) == 1:
        return 0.0
    from scipy.stats import t

    statistic = coefficient * math.sqrt(freedom / (1 - coefficient**2))
    return float(2 * t.sf(abs(statistic), freedom))
