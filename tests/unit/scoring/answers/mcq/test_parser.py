"""The multiple-choice reader against a human reader, and the LSBS rule against its definition."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.scoring.answers.mcq.parser import read_choice, read_choice_lsbs
from tests.support.golden import cases
from tests.support.mcq_cases import CASES, ROOM
from tests.support.mcq_hard_cases import HARD_CASES


def letter(index: int | None) -> str | None:
    return None if index is None else chr(ord("A") + index)


@pytest.mark.parametrize(
    "case", cases("mcq_parse"), ids=lambda case: f"{case['why']}: {case['input']['answer']!r}"
)
def test_golden_human_column(case):
    assert letter(read_choice(case["input"]["answer"], case["input"]["options"])) == case["expected"]["human"]


@pytest.mark.parametrize(
    "case", cases("mcq_parse"), ids=lambda case: f"{case['why']}: {case['input']['answer']!r}"
)
def test_golden_lsbs_column(case):
    index = read_choice_lsbs(case["input"]["answer"], case["input"]["options"])
    assert letter(index) == case["expected"]["lsbs"]


@pytest.mark.parametrize(("answer", "options", "expected"), CASES, ids=[repr(case[0]) for case in CASES])
def test_hand_written_cases(answer, options, expected):
    assert letter(read_choice(answer, options)) == expected


@pytest.mark.parametrize(
    ("answer", "options", "expected"), HARD_CASES, ids=[repr(case[0]) for case in HARD_CASES]
)
def test_hard_answers(answer, options, expected):
    assert letter(read_choice(answer, options)) == expected


@given(st.text(max_size=200), st.lists(st.text(max_size=20), min_size=2, max_size=26))
def test_any_text_gives_an_index_or_nothing(answer, options):
    for reader in (read_choice, read_choice_lsbs):
        index = reader(answer, options)
        assert index is None or 0 <= index < len(options)


@given(
    st.integers(0, 25),
    st.sampled_from(["{}", "({})", "**{}**", "{}.", "Answer: {}", "\\boxed{{{}}}", "The answer is {}."]),
)
def test_every_letter_of_26_options_is_read(index, dress):
    options = [f"item number {n} of a list" for n in range(26)]
    assert read_choice(dress.format(chr(ord("A") + index)), options) == index


@given(st.permutations(ROOM), st.sampled_from(ROOM))
def test_the_text_wins_wherever_it_is(options, taken):
    assert read_choice(f"There is a {taken} in the picture.", options) == options.index(taken)
    assert read_choice(f"The answer is {taken}", options) == options.index(taken)


def test_a_runaway_repetition_is_still_that_letter():
    assert read_choice("B\n" * 20_000, ROOM) == 1
    assert read_choice("A " * 20_000 + "\nB", ROOM) is None


def test_overlapping_texts_are_ambiguous():
    options = ["race car", "car park", "tree", "road"]
    assert read_choice("the race car park", options) is None
    assert read_choice("a car park", options) == 1
    assert read_choice("same", ["same", "same"]) is None


def test_private_characters_in_the_answer_are_no_mentions():
    assert read_choice("\ue000\ue001", ROOM) is None
    assert read_choice("\ue005 B", ROOM) == 1


def test_a_long_answer_is_read_in_time():
    answer = "The wardrobe is not there, nor is the cabinet, and A, B or C? " * 400 + "The answer is D."
    start = time.perf_counter()
    assert read_choice(answer, ROOM) == 3
    assert time.perf_counter() - start < 5
