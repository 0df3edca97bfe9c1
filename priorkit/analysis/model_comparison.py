"""Paired comparisons of models by entity: overall, in each bin of Rank_e, and the last bin against the first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from priorkit.analysis.prior_accuracy import Floats, PriorAccuracy, RankBin
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import (
    bootstrap_difference,
    bootstrap_indices,
    percentile_interval,
    permutation_test,
)


def compare_models(
    data: PriorAccuracy, bins: Sequence[RankBin], *, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Differences in accuracy between all pairs of models, paired by entity.

    Args:
        data: accuracies of the same entities by all models.
        bins: bins of Rank_e, strongest priors first.
        seed: of the resampling.
        resamples: bootstrap samples of entities.

    Returns:
        For each pair ``first``, ``second`` (in the order given) and the differences second - first: ``overall``
        and one per bin, each with ``value, low, high``, the paired permutation test's ``p_value``, and
        ``share_of_error``, the difference as a share of the first model's error (null if it has none): strong
        priors leave little error to reduce; ``worst_minus_best``, the difference in the last bin minus that in
        the first.
    """
    resampling = {"seed": seed, "resamples": resamples}
    comparisons: list[dict[str, Any]] = []
    for first, second in combinations(data.accuracy, 2):
        before, after = data.accuracy[first], data.accuracy[second]
        gain = after - before
        comparisons.append(
            {
                "first": first,
                "second": second,
                "overall": _paired_difference(before, after, **resampling),
                "bins": [_paired_difference(before[b.rows], after[b.rows], **resampling) for b in bins],
                "worst_minus_best": _difference_of_means(
                    gain[bins[0].rows], gain[bins[-1].rows], **resampling
                ).to_dict(),
            }
        )
    return comparisons


def _paired_difference(first: Floats, second: Floats, *, seed: int, resamples: int) -> dict[str, Any]:
    interval = bootstrap_difference(second, first, seed=seed, resamples=resamples)
    error = 1 - float(first.mean())
    return {
        **interval.to_dict(),
        "p_value": permutation_test(second, first, seed=seed),
        "share_of_error": interval.value / error if error > 0 else None,
    }


def _difference_of_means(best: Floats, worst: Floats, *, seed: int, resamples: int) -> Interval:
    """Mean of the worst minus mean of the best bin's values, with both resampled independently."""
    best_means, worst_means = (
        np.concatenate(
            [values[draw].mean(1) for draw in bootstrap_indices(len(values), resamples, seed + number)]
        )
        for number, values in enumerate((best, worst))
    )
    return percentile_interval(float(worst.mean() - best.mean()), worst_means - best_means, 0.95)
