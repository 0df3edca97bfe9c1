"""VQA v2 and TextVQA accuracy against the official scorers."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.answers.vqa import (
    human_agreement,
    normalize_textvqa,
    normalize_vqa,
    score_textvqa,
    score_vqa,
)
from tests.support.golden import cases, load


@pytest.mark.parametrize("case", cases("vqa_accuracy"), ids=lambda case: case["why"])
def test_vqa_equals_the_official_scorer(case):
    scored = score_vqa(case["input"]["prediction"], case["input"]["answers"])
    assert scored.score == pytest.approx(case["expected"]["accuracy"], abs=1e-9)
    assert scored.parsed == case["expected"]["prediction_after"]
    if case["expected"]["normalised"]:
        assert list(map(normalize_vqa, case["input"]["answers"])) == case["expected"]["answers_after"]


def test_vqa_aggregate_by_answer_type():
    golden = load("vqa_accuracy")
    by_type = defaultdict(list)
    for case in golden["cases"]:
        score = score_vqa(case["input"]["prediction"], case["input"]["answers"]).score
        by_type[case["input"]["answer_type"]].append(score)
    for answer_type, percent in golden["aggregate"]["per_answer_type_percent"].items():
        scores = by_type[answer_type]
        assert round(100 * sum(scores) / len(scores), 2) == percent
    everything = [score for scores in by_type.values() for score in scores]
    assert sum(everything) / len(everything) == pytest.approx(golden["aggregate"]["accuracy_mean"], abs=1e-9)


@pytest.mark.parametrize("case", cases("textvqa"), ids=lambda case: case["why"])
def test_textvqa_equals_the_m4c_evaluator(case):
    scored = score_textvqa(case["input"]["prediction"], case["input"]["answers"])
    assert scored.score == pytest.approx(case["expected"]["accuracy"], abs=1e-9)
    assert scored.parsed == case["expected"]["prediction_after"]
    assert list(map(normalize_textvqa, case["input"]["answers"])) == case["expected"]["answers_after"]


@pytest.mark.parametrize(
    ("matches", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_ten_answers_give_tenths(matches, expected):
    answers = ["yes"] * matches + ["no"] * (10 - matches)
    assert human_agreement("yes", answers) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.sampled_from(["a1", "b2", "c3"]), min_size=4, max_size=14), st.sampled_from(["a1", "b2"]))
def test_agreement_is_the_leave_one_out_mean(answers, prediction):
    subsets = [answers[:index] + answers[index + 1 :] for index in range(len(answers))]
    expected = sum(min(1, subset.count(prediction) / 3) for subset in subsets) / len(answers)
    assert human_agreement(prediction, answers) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 12))
def test_full_agreement_is_one_for_any_number_of_answers(count):
    assert score_vqa("dog", ["dog"] * count).score == 1
    assert score_textvqa("Dog.", ["dog"] * count).score == 1
    assert score_vqa("cat", ["dog"] * count).score == 0


def test_few_answers_share_the_score():
    assert human_agreement("a1", ["a1", "b2"]) == 0.5
    assert human_agreement("a1", ["a1", "a1", "b2"]) == pytest.approx(2 / 3)


def test_no_answers_is_an_error():
    with pytest.raises(InputError, match="no answers"):
        score_vqa("dog", [])


def test_only_32_full_stops_are_removed():
    assert normalize_vqa("." * 40) == "." * 8


@pytest.mark.parametrize(
    ("text", "written", "meant"),
    [
        ("a dog.", "dog", "dog"),
        ("3.", "3", "3."),
        ("3.5", "3.5", "3.5"),
        ("no. 3. yes", "no 3 yes", "no 3. yes"),
        ("." * 40, "." * 8, ""),
    ],
)
def test_full_stops_as_the_rule_is_written_and_as_it_is_meant(text, written, meant):
    for normalize in (normalize_vqa, normalize_textvqa):
        assert normalize(text) == written
        assert normalize(text, strict=True) == meant


def test_the_strict_reading_changes_the_score():
    answers = ["3"] * 9 + ["4"]
    assert score_vqa("3.", answers).score == score_textvqa("3.", answers).score == 1
    assert score_vqa("3.", answers, strict=True).score == score_textvqa("3.", answers, strict=True).score == 0
