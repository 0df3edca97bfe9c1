"""An effect with its interval over seeds and items."""

from __future__ import annotations

import math

import numpy as np

from priorkit.analysis.claims.base import EFFECT, Floats, Measure, UnitScores
from priorkit.analysis.claims.rule import decide
from priorkit.core.interval import Interval
from priorkit.data.results.claim_results import MeasuredEffect, Verdict
from priorkit.scoring.statistics.seeds_and_items import (
    jackknife_values,
    seeds_and_items,
    share_of_seeds,
)


def measure_effect(
    measure: Measure, scores: UnitScores, *, seed: int, resamples: int, decides: bool
) -> MeasuredEffect:
    """Compute an effect and decide about it.

    Units are resampled, the same ones for all arms and seeds, so that pairs stay pairs; seeds enter by
    :func:`priorkit.scoring.statistics.seeds_and_items.seeds_and_items`, through the jackknife, since not every effect
    is a mean over seeds.

    Args:
        measure: what to compute.
        scores: from :meth:`priorkit.analysis.claims.scores.ScoreReader.read`.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        decides: whether the rule is applied.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        statistics = measure.statistics(scores, scores.resampling(seed, resamples))
        intervals, share = effect_intervals(measure, statistics)
        per_seed = [
            float(measure.effects(statistics[:1, [number]])[EFFECT][0]) for number in range(len(scores.seeds))
        ]
    effect = intervals.pop(EFFECT)
    verdict, reason = _verdict(measure, effect, intervals, share) if decides else (None, "")
    return MeasuredEffect(
        name=measure.name,
        kind=measure.kind,
        effect=effect,
        smallest=measure.smallest,
        verdict=verdict,
        reason=reason,
        per_seed=dict(zip(scores.seeds, per_seed, strict=True)) if not any(map(math.isnan, per_seed)) else {},
        parts=intervals,
        share_of_seeds=share,
        items=scores.items,
        units=scores.units,
        unit=scores.unit,
        notes=scores.notes,
    )


def effect_intervals(measure: Measure, statistics: Floats) -> tuple[dict[str, Interval], float]:
    """The effect and its parts with 95 % intervals, and the share of the effect's variance that comes from seeds.

    Args:
        measure: what to compute.
        statistics: float64 ``[1 + resamples, seeds, statistics]``; the first row is of the items as they are.
    """
    seeds = statistics.shape[1]
    together = measure.effects(statistics)
    if seeds == 1:
        one = {
            name: seeds_and_items(float(values[0]), values[:1], values[1:, None])
            for name, values in together.items()
        }
        return one, math.nan
    without = [measure.effects(np.delete(statistics, number, axis=1)) for number in range(seeds)]
    intervals: dict[str, Interval] = {}
    share = math.nan
    for name, values in together.items():
        pseudo = jackknife_values(values, np.stack([part[name] for part in without], axis=-1))
        intervals[name] = seeds_and_items(float(values[0]), pseudo[0], pseudo[1:])
        share = share_of_seeds(pseudo[0], pseudo[1:]) if name == EFFECT else share
    return intervals, share


def _verdict(
    measure: Measure, effect: Interval, parts: dict[str, Interval], share: float
) -> tuple[Verdict, str]:
    needed = parts.get(measure.must_be_positive)
    if needed is not None and not needed.low > 0:
        return (
            "undecided",
            f"the {measure.must_be_positive} is {needed.value:.3f} [{needed.low:.3f}, {needed.high:.3f}], not surely above 0",
        )
    verdict, reason = decide(effect, measure.smallest or math.inf)
    if verdict == "undecided" and math.isfinite(share):
        reason += f"; {100 * share:.0f} % of the variance comes from seeds, the rest from items"
    return verdict, reason
