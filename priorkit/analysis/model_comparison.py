"""Models against each other, entity by entity: overall, in each bin of Rank_e, and worst bin against best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from priorkit.analysis.prior_accuracy import Floats, Joined, RankBin
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import (
    bootstrap_difference,
    percentile_interval,
    permutation_test,
    resampled,
)


def comparisons(
    joined: Joined, bins: Sequence[RankBin], *, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Every model minus every one given before it, paired by entity.

    Args:
        joined: accuracies of the same entities by all models.
        bins: bins of Rank_e, the strongest priors first.
        seed: of the resampling.
        resamples: bootstrap samples of entities.

    Returns:
        For each pair ``first``, ``second`` and the differences second - first: ``overall`` and one per bin,
        each with ``value, low, high``, the paired permutation test's ``p_value``, and ``share_of_error``, the
        difference as a share of what the first had left to gain (null where that is nothing), for a strong
        prior leaves little room; ``worst_minus_best``, how much larger the difference is in the last bin
        than in the first.
    """
    draws = {"seed": seed, "resamples": resamples}
    found: list[dict[str, Any]] = []
    for first, second in combinations(joined.accuracy, 2):
        one, other = joined.accuracy[first], joined.accuracy[second]
        found.append(
            {
                "first": first,
                "second": second,
                "overall": _compared(one, other, **draws),
                "bins": [_compared(one[part.rows], other[part.rows], **draws) for part in bins],
                "worst_minus_best": _contrast(
                    (other - one)[bins[0].rows], (other - one)[bins[-1].rows], **draws
                ).to_dict(),
            }
        )
    return found


def _compared(first: Floats, second: Floats, *, seed: int, resamples: int) -> dict[str, Any]:
    interval = bootstrap_difference(second, first, seed=seed, resamples=resamples)
    left = 1 - float(first.mean())
    return {
        **interval.to_dict(),
        "p_value": permutation_test(second, first, seed=seed),
        "share_of_error": interval.value / left if left > 0 else None,
    }


def _contrast(best: Floats, worst: Floats, *, seed: int, resamples: int) -> Interval:
    """Difference of two means over different entities, each resampled on its own."""
    means = [
        np.concatenate([values[draw].mean(1) for draw in resampled(len(values), resamples, seed + number)])
        for number, values in enumerate((best, worst))
    ]
    return percentile_interval(float(worst.mean() - best.mean()), means[1] - means[0], 0.95)
