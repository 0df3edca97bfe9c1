"""Most answers unparsed, or options that tie: a warning with an example."""

from __future__ import annotations

import pytest

from priorkit.evaluation.results.scoring import score_answers
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.choice import CHOICE
from priorkit.evaluation.tasks.grounding import GROUNDING
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.boxes import Box


@pytest.mark.parametrize(("broken", "warns"), [(0, False), (2, False), (3, True), (4, True)])
def test_over_half_unparsed_warns_with_an_example(
    caplog: pytest.LogCaptureFixture, broken: int, warns: bool
) -> None:
    items = [Item(f"i{n}", box=Box(0.1, 0.2, 0.3, 0.4)) for n in range(4)]
    texts = ["", *["[100,200,300,400]"] * 3][:broken] + ["[0.1,0.2,0.3,0.4]"] * (4 - broken)
    answers = [ModelAnswer(text) for text in texts]
    with caplog.at_level("WARNING", logger="priorkit"):
        score_answers("refcoco", GROUNDING, items, answers, ScoringOptions())
    assert bool(caplog.records) == warns
    if warns:
        assert f"{broken} of 4 answers are unparsed (with --box-space auto)" in caplog.text
        assert "item i1: '[100,200,300,400]'" in caplog.text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((-1.0, -2.0, -3.0), ""),
        ((-1.5, -1.5, -1.5), "for 1 of 2 items the best options are equally likely, such as for item i1 ('x', 'y', 'z': -1.5)"),
        ((-2.0, -1.5, -1.5), "for 1 of 2 items the best options are equally likely, such as for item i1 ('y', 'z': -1.5)"),
        ((-1.5, -2.0, -2.0), ""),
        ((float("nan"),) * 3, "for 1 of 2 items the model's log-likelihoods are NaN, such as for item i1"),
        ((float("-inf"),) * 3, "equally likely"),
    ],
)  # fmt: skip
def test_options_of_equal_likelihood_are_counted(
    caplog: pytest.LogCaptureFixture, values: tuple[float, ...], words: str
) -> None:
    choices = ("x", "y", "z")
    items = [Item(f"i{n}", choices=choices, answer=0) for n in range(2)]
    answers = [
        ModelAnswer("x", "", 0, (-1.0, -2.0, -4.0), (1, 1, 1), choices),
        ModelAnswer("x", "", max(range(3), key=lambda index: values[index]), values, (1, 1, 1), choices),
    ]
    with caplog.at_level("WARNING", logger="priorkit"):
        score_answers("mine", CHOICE, items, answers, ScoringOptions())
    assert len(caplog.records) == bool(words)
    assert words in caplog.text
