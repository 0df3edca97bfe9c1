"""Every task type reads the answer behind a reasoning block, whatever its marks and wherever it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from priorkit.evaluation.results.abstention import with_abstention
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.scoring.answers.box_formats import BOX_FORMATS
from priorkit.scoring.answers.boxes import Box
from priorkit.scoring.answers.reasoning import MARKS

MISLEADING = "No, it may be a dog, 5, (A), [0.5,0.5,0.6,0.6]."
QUESTIONS: dict[str, tuple[Item, str]] = {
    "choice": (Item(1, choices=("dog", "cat"), answer=1), "B"),
    "mixed": (Item(1, answer="7"), "7"),
    "caption": (Item(1, references=("a cat on a mat",)), "a cat on a mat"),
    "grounding": (Item(1, box=Box(0.1, 0.2, 0.3, 0.4)), "[0.1,0.2,0.3,0.4]"),
    "vqa": (Item(1, answers=("kite",) * 10), "kite"),
    "textvqa": (Item(1, answers=("kite",) * 10), "kite"),
    "gqa": (Item(1, answer="kite"), "kite"),
    "exact": (Item(1, answer="kite"), "kite"),
    "relaxed": (Item(1, answer="7"), "7"),
    "ocr": (Item(1, answers=("stop",)), "STOP"),
    "yes-no": (Item(1, answer="yes"), "yes"),
}
BLOCKS = [mark.example.replace("It is small.", MISLEADING) for mark in MARKS] + ["<think>\n\n</think>"]
PLACES: dict[str, Callable[[str, str], str]] = {
    "before": lambda block, answer: f"{block}\n\n{answer}",
    "after": lambda block, answer: f"{answer}\n{block}",
    "not closed": lambda block, answer: f"{answer}\n{block[:-3]}",
}


def test_every_task_of_written_answers_is_tried() -> None:
    assert set(QUESTIONS) == {
        name for name, task in TASKS.items() if task.from_predictions and not task.documents
    }


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("strict", [False, True])
def test_the_score_is_that_of_the_bare_answer(name: str, block: str, place: str, strict: bool) -> None:
    if place != "before" and block.startswith(("analysis", "Here")):
        return  # These marks are words, which count only at the beginning of an answer.
    item, answer = QUESTIONS[name]
    options = ScoringOptions(strict=strict)
    expected = TASKS[name].score([item], [ModelAnswer(answer)], options)
    found = TASKS[name].score([item], [ModelAnswer(PLACES[place](block, answer))], options)
    assert (found.scores, found.parsed, found.unparsed) == (
        expected.scores,
        expected.parsed,
        expected.unparsed,
    )
    assert found.counts.tolist() == expected.counts.tolist()


@pytest.mark.parametrize("name", QUESTIONS)
def test_reasoning_without_an_answer_is_unparsed(name: str) -> None:
    item, _ = QUESTIONS[name]
    assert TASKS[name].score([item], [ModelAnswer(f"<think>{MISLEADING}")], ScoringOptions()).unparsed == [
        True
    ]


def test_the_prediction_keeps_its_reasoning() -> None:
    answer = ModelAnswer("<think>I cannot see it.</think>yes")
    assert (answer.prediction, answer.text) == ("<think>I cannot see it.</think>yes", "yes")
    item = Item(1, answer="yes", withheld=True)
    scored = TASKS["yes-no"].score([item], [answer], ScoringOptions())
    metrics = with_abstention([item], [answer], scored)
    assert metrics.metrics(metrics.counts.sum(0))["abstention_rate"] == 0


@pytest.mark.parametrize("form", BOX_FORMATS, ids=lambda form: form.models)
@pytest.mark.parametrize("block", BLOCKS)
def test_every_box_behind_reasoning(form: object, block: str) -> None:
    example = str(getattr(form, "example"))  # noqa: B009
    item = Item(1, box=Box(0.1, 0.2, 0.3, 0.4))
    options = ScoringOptions(box_space="1000")
    found = TASKS["grounding"].score([item], [ModelAnswer(f"{block}\n{example}")], options)
    assert found.extra["iou"][0] > 0.75
