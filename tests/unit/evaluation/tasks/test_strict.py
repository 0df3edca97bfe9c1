"""The strict reading of task types, and truths and answers that are blank."""

from __future__ import annotations

import pytest

from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS


def scores(task: str, items: list[Item], answers: list[str], rules: ScoringOptions) -> list[float]:
    return TASKS[task].score(items, [ModelAnswer(text) for text in answers], rules).scores


@pytest.mark.parametrize("task", ["vqa", "textvqa"])
def test_full_stops_of_vqa(task: str) -> None:
    items = [Item(id=0, answers=("3",) * 9 + ("4",))]
    assert scores(task, items, ["3."], ScoringOptions()) == [1.0]
    assert scores(task, items, ["3."], ScoringOptions(strict=True)) == [0.0]


def test_capitals_of_formulas() -> None:
    items = [Item(id=0, answers=("X^2",), groups={"dataset": "HME100k"}), Item(id=1, answers=("Exit",))]
    assert scores("ocr", items, ["X^2", "EXIT"], ScoringOptions()) == [0.0, 1.0]
    assert scores("ocr", items, ["X^2", "EXIT"], ScoringOptions(strict=True)) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("ocr", {"answers": [""]}),
        ("ocr", {"answers": ["exit", " "]}),
        ("gqa", {"answer": ""}),
        ("exact", {"answer": " "}),
        ("relaxed", {"answer": ""}),
    ],
)
def test_a_blank_truth_is_refused(task: str, row: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="is empty"):
        TASKS[task].read_truth(row)


def test_people_may_leave_an_answer_of_vqa_blank() -> None:
    assert TASKS["vqa"].read_truth({"answers": ["", "red"]}) == {"answers": ("", "red")}


def test_a_blank_answer_is_read_as_yes_and_counted() -> None:
    items = [Item(id=0, answer="yes"), Item(id=1, answer="no"), Item(id=2, answer="no")]
    answers = [ModelAnswer(" "), ModelAnswer(""), ModelAnswer("no")]
    official = TASKS["yes-no"].score(items, answers, ScoringOptions())
    assert official.scores == [1.0, 0.0, 1.0]
    assert official.unparsed == [True, True, False]
    assert official.parsed == ["yes", "yes", "no"]
    strict = TASKS["yes-no"].score(items, answers, ScoringOptions(strict=True))
    assert strict.scores == [0.0, 0.0, 1.0]
    assert strict.unparsed == [True, True, False]
    assert strict.parsed == [None, None, "no"]
