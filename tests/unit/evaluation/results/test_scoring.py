"""Most answers unparsed: a warning with an example."""

from __future__ import annotations

import pytest

from priorkit.evaluation.results.scoring import score_answers
from priorkit.evaluation.tasks.base import ScoringOptions
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
        assert f"{broken} of 4 answers are unparsed (with --box-space unit)" in caplog.text
        assert "item i1: '[100,200,300,400]'" in caplog.text
