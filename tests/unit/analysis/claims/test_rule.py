"""The rule: every position of an interval relative to zero and the smallest effect of interest."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.analysis.claims.rule import decide, decide_together
from priorkit.core.interval import Interval
from priorkit.data.results.claim_results import MeasuredEffect, Verdict


@pytest.mark.parametrize(
    ("value", "low", "high", "verdict", "reason"),
    [
        (0.3, 0.15, 0.45, "supported", "at least the smallest"),
        (0.3, 0.05, 0.55, "supported", "at least the smallest"),
        (0.08, 0.02, 0.14, "undecided", "perhaps less"),
        (0.05, 0.01, 0.09, "contradicted", "surely less than the smallest"),
        (0.0, -0.08, 0.08, "contradicted", "ruled out"),
        (-0.3, -0.4, -0.2, "contradicted", "opposite"),
        (0.1, -0.1, 0.3, "undecided", "more seeds or items"),
        (-0.1, -0.5, 0.3, "undecided", "more seeds or items"),
        (0.0, 0.0, 0.0, "undecided", "nothing varies"),
        (1.0, 1.0, 1.0, "supported", "at least the smallest"),
        (math.nan, math.nan, math.nan, "undecided", "not defined"),
        (0.3, math.nan, math.nan, "undecided", "not defined"),
    ],
)
def test_one_effect(value: float, low: float, high: float, verdict: str, reason: str) -> None:
    found, why = decide(Interval(value, low, high), 0.1)
    assert found == verdict
    assert reason in why


@given(
    st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1)
)  # fmt: skip
def test_the_rule_is_the_one_that_is_written(
    value: float, below: float, above: float, smallest: float
) -> None:
    interval = Interval(value, value - below, value + above)
    supported = interval.low > 0 and value >= smallest
    contradicted = interval.high < smallest
    assert not (supported and contradicted)
    if interval.low == interval.high == 0:
        return
    expected = "supported" if supported else "contradicted" if contradicted else "undecided"
    assert decide(interval, smallest)[0] == expected


def effect(verdict: Verdict) -> MeasuredEffect:
    nothing = Interval(0, 0, 0)
    return MeasuredEffect(
        "n", "difference", nothing, 0.1, verdict, f"why {verdict}", {}, {}, 0.5, 1, 1, "image"
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "supported"], "supported"),
        (["supported", "undecided"], "undecided"),
        (["undecided", "contradicted"], "contradicted"),
        (["supported", "contradicted"], "contradicted"),
    ],
)
def test_a_claim_needs_all_of_its_measures(verdicts: list[Verdict], expected: str) -> None:
    verdict, reason = decide_together([effect(verdict) for verdict in verdicts])
    assert verdict == expected
    assert reason
