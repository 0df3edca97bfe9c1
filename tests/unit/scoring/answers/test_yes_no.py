"""POPE's reading and rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.answers.yes_no import read_label, read_yes_no
from tests.support.golden import cases, load
from tests.support.scoring_references import yes_no_metrics

RATES = ("accuracy", "precision", "recall", "f1", "yes_ratio")


@pytest.mark.parametrize(
    "case", cases("pope"), ids=lambda case: f"{case['why']}: {case['input']['answer']!r}"
)
def test_reading(case):
    assert read_yes_no(case["input"]["answer"]) == case["expected"]["reading"]


@pytest.mark.parametrize("category", [None, "random", "popular", "adversarial"])
def test_rates_equal_the_official_ones(category):
    golden = load("pope")
    expected = golden["aggregate"]["per_category"][category] if category else golden["aggregate"]
    chosen = [case["input"] for case in golden["cases"] if category in (None, case["input"]["category"])]
    metrics = yes_no_metrics(
        [read_yes_no(item["answer"]) for item in chosen], [read_label(item["label"]) for item in chosen]
    )
    assert metrics.items == expected["n"]
    counts = (metrics.true_positive, metrics.false_positive, metrics.true_negative, metrics.false_negative)
    assert counts == tuple(expected[name] for name in ("TP", "FP", "TN", "FN"))
    for rate in RATES:
        assert getattr(metrics, rate) == pytest.approx(expected[rate], abs=1e-12)


def test_rates_over_nothing_are_zero():
    never = yes_no_metrics(["no", "no"], ["no", "no"])
    assert (never.accuracy, never.precision, never.recall, never.f1, never.yes_ratio) == (1, 0, 0, 0, 0)
    assert yes_no_metrics([], []).accuracy == 0


def test_lengths_must_agree():
    with pytest.raises(InputError, match="1 answers for 2 labels"):
        yes_no_metrics(["no"], ["no", "yes"])


@given(st.lists(st.tuples(st.sampled_from(["yes", "no"]), st.sampled_from(["yes", "no"])), min_size=1))
def test_rates_are_between_zero_and_one(pairs):
    metrics = yes_no_metrics([reading for reading, _ in pairs], [label for _, label in pairs])
    assert all(0 <= getattr(metrics, rate) <= 1 for rate in RATES)
    assert metrics.items == len(pairs)
