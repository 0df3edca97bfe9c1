"""The rule that decides: an interval, zero, and the smallest effect of interest.

With the effect ``e``, its 95 % interval ``[low, high]`` over seeds and items, and the smallest effect of interest ``s > 0``:

- **supported** if ``low > 0`` and ``e >= s``;
- **contradicted** if ``high < s``;
- **undecided** otherwise.

The first is a test of superiority with a condition on the size of the estimate. The second is a test of inferiority
against the smallest effect of interest, half of an equivalence test: Schuirmann, "A comparison of the two one-sided
tests procedure and the power approach" (1987); Lakens, Scheel and Isager, "Equivalence Testing for Psychological
Research: A Tutorial" (2018). Both have a one-sided level of 2.5 %, half of what is usual for equivalence, as both
read the same 95 % interval. The first cannot hold together with the second.

A claim with several measures needs all of them (intersection-union test: Berger, "Multiparameter Hypothesis Testing and
Acceptance Sampling", 1982; no correction is needed): it is supported if all are, contradicted if one is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.claim_results import MeasuredEffect, Verdict

RULE = (
    "95 % interval [low, high] over seeds and items, smallest effect of interest s: supported if low > 0 and the effect "
    ">= s; contradicted if high < s; undecided otherwise. A claim with several measures is supported if all are, "
    "contradicted if one is."
)


def decide(effect: Interval, smallest: float) -> tuple[Verdict, str]:
    """The verdict about one effect, and why.

    Args:
        effect: with its interval; positive is what the claim predicts.
        smallest: the smallest effect of interest, above 0.
    """
    if not all(map(math.isfinite, (effect.value, effect.low, effect.high))):
        return "undecided", "the effect is not defined for these scores"
    if effect.low == effect.high and effect.value == 0:
        return "undecided", "nothing varies: all scores are equal, as where all are right or all wrong"
    if effect.low > 0 and effect.value >= smallest:
        return "supported", "surely above 0, and at least the smallest effect of interest"
    if effect.high < smallest:
        if effect.high < 0:
            return "contradicted", "the effect is in the opposite direction"
        if effect.low > 0:
            return "contradicted", "there is an effect, but surely less than the smallest of interest"
        return "contradicted", "an effect as large as the smallest of interest is ruled out"
    if effect.low > 0:
        return "undecided", "surely above 0, but perhaps less than the smallest effect of interest"
    return (
        "undecided",
        "neither 0 nor the smallest effect of interest is ruled out: more seeds or items are needed",
    )


def decide_together(measures: Sequence[MeasuredEffect]) -> tuple[Verdict, str]:
    """The verdict about a claim from those about its measures."""
    if len(measures) == 1 and measures[0].verdict is not None:
        return measures[0].verdict, measures[0].reason
    for verdict in ("contradicted", "undecided"):
        deciding = [measure for measure in measures if measure.verdict == verdict]
        if deciding:
            return verdict, "; ".join(f"{measure.name}: {measure.reason}" for measure in deciding)
    return "supported", "all measures are surely above 0 and at least the smallest effect of interest"
