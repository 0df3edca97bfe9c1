"""Published rules for multiple-choice answers, on answers whose readings follow from the scorers' source."""

from __future__ import annotations

import pytest

from priorkit.scoring.answers.mcq.published import PARSERS

OPTIONS = ("a red car", "a blue bus", "a green tree", "a dog")


@pytest.mark.parametrize(
    ("parser", "answer", "index"),
    [
        ("first-letter", " B. a blue bus", 1),
        ("first-letter", "Because it is red", 1),
        ("first-letter", "(B)", None),
        ("first-letter", "b", None),
        ("first-letter", "", None),
        ("only-letter", "B", 1),
        ("only-letter", "(b).", 1),
        ("only-letter", "B. a blue bus", None),
        ("only-letter", "E", None),
        ("leading-letter", "(B) a blue bus", 1),
        ("leading-letter", "c) a green tree", 2),
        ("leading-letter", "Dogs are not there", 3),
        ("leading-letter", "The answer is B", None),
        ("leading-letter", "2", None),
        ("scienceqa", "B", 1),
        ("scienceqa", "B. a blue bus", 1),
        ("scienceqa", "The answer is B.", 1),
        ("scienceqa", "The answer is B. No, The answer is C.", None),
        ("scienceqa", "The answer is B", None),
        ("scienceqa", "(B)", None),
        ("scienceqa", "E", None),
        ("mmmu", "B", 1),
        ("mmmu", "B.", 1),
        ("mmmu", "(A) or rather (B)", 1),
        ("mmmu", "First A then C here", 2),
        ("mmmu", "It seems to show a green tree, and a dog", 3),
        ("mmmu", "a blue bus", None),
        ("mmmu", "nothing of it", None),
        ("vlmevalkit", "B", 1),
        ("vlmevalkit", "The answer is (B), surely.", 1),
        ("vlmevalkit", "A or B", None),
        ("vlmevalkit", "a blue bus", 1),
        ("vlmevalkit", "a blue bus and a dog", None),
        ("vlmevalkit", "Cannot determine the answer: B", None),
        ("vlmevalkit", "a dog " + "far away " * 20, None),
    ],
)
def test_published_rules(parser: str, answer: str, index: int | None) -> None:
    assert PARSERS[parser](answer, OPTIONS) == index


@pytest.mark.parametrize("parser", sorted(PARSERS))
@pytest.mark.parametrize("answer", ["", " ", "Z", "?", "\n"])
def test_no_parser_guesses(parser: str, answer: str) -> None:
    assert PARSERS[parser](answer, OPTIONS) is None
