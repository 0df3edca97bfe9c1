"""GQA, exact and relaxed matching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.scoring.answers.short_answer import score_exact, score_gqa, score_ocr, score_open, score_relaxed
from tests.support.golden import cases, load


@pytest.mark.parametrize("case", cases("gqa"), ids=lambda case: case["why"])
def test_gqa_case(case):
    scored = score_gqa(case["input"]["prediction"], case["input"]["gold"])
    assert scored.score == case["expected"]["correct"]
    assert scored.parsed == case["expected"]["prediction_after"]


def test_gqa_aggregate():
    golden = load("gqa")
    scores = [score_gqa(case["input"]["prediction"], case["input"]["gold"]).score for case in golden["cases"]]
    assert sum(scores) / len(scores) == pytest.approx(golden["aggregate"]["accuracy"], abs=1e-12)


def test_exact_options():
    assert score_exact(" Paris\n", "Paris").score == 1
    assert score_exact("paris", "Paris").score == 0
    assert score_exact("paris", "Paris", ignore_case=True).score == 1
    assert score_exact("Paris!", "Paris", ignore_punctuation=True).score == 1


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("100", "100", 1),
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.01", "100", 0),
        ("12%", "0.12", 1),
        ("12", "12%", 0),
        ("-104", "-100", 1),
        ("0", "0", 1),
        ("0.0", "0", 0),
        ("Blue", "blue", 1),
        ("nan", "3", 0),
        ("inf", "3", 0),
        ("about 100", "100", 0),
    ],
)
def test_relaxed(prediction, answer, score):
    assert score_relaxed(prediction, answer).score == score


@given(st.floats(0.001, 1e6), st.floats(-0.0499, 0.0499))
def test_relaxed_accepts_anything_within_five_percent(true, off):
    assert score_relaxed(repr(true * (1 + off)), repr(true)).score == 1


@pytest.mark.parametrize(
    ("prediction", "official", "strict"),
    [("X^2", 0, 1), ("x^2", 0, 0), ("$ X ^ 2 $", 0, 1), ("y^2", 0, 0)],
)
def test_a_formula_with_a_capital_matches_in_the_strict_reading_only(prediction, official, strict):
    assert score_ocr(prediction, ["X ^ 2"], formula=True).score == official
    assert score_ocr(prediction, ["X ^ 2"], formula=True, strict=True).score == strict


def test_words_are_read_in_any_case_in_both_readings():
    for strict in (False, True):
        assert score_ocr("The sign says CENTRE.", ["Centre"], strict=strict).score == 1


def test_a_blank_truth_is_never_met():
    assert score_open("anything", " ").score == 0


@pytest.mark.parametrize(("prediction", "answer"), [("1,000", "1000"), ("$14", "14"), ("about 14", "14")])
def test_relaxed_reads_no_number_but_plain_ones(prediction, answer):
    assert score_relaxed(prediction, answer).score == 0
