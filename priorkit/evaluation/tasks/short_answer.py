"""Short answers: VQA v2, TextVQA, GQA, exact match, ChartQA's relaxed accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from priorkit.evaluation.tasks.base import Scorer, ScoringOptions, Task, TaskScores, has_columns, mean_scores
from priorkit.evaluation.tasks.cells import Row, text_cell, texts_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers import short_answer
from priorkit.scoring.answers.parsed_score import ParsedScore
from priorkit.scoring.answers.vqa import score_textvqa, score_vqa


def read_answer(row: Row) -> dict[str, Any]:
    """The one right text; a blank one is refused, since blank answers would match it."""
    return {"answer": text_cell(row, "answer", blank=False)}


def read_answers(row: Row) -> dict[str, Any]:
    """The human answers, at least one; some may be blank."""
    return {"answers": texts_cell(row, "answers")}


def read_texts(row: Row) -> dict[str, Any]:
    """The texts to be read, at least one and none blank: every answer contains a blank one.

    Raises:
        ValueError: one is blank.
    """
    answers = texts_cell(row, "answers")
    if blank := [index for index, answer in enumerate(answers) if not answer.strip()]:
        raise ValueError(f"'answers'[{blank[0]}] is empty")
    return {"answers": answers}


def _scorer(rule: Callable[[Item, str, bool], ParsedScore]) -> Scorer:
    """Mean of the rule's scores; a blank answer that scores nothing counts as unparsed.

    Args:
        rule: scores one answer, from the item, the answer and whether known bugs of the official rule are corrected.
    """

    def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
        results = [
            rule(item, answer.text, options.strict) for item, answer in zip(items, answers, strict=True)
        ]
        unparsed = [
            not answer.text.strip() and not result.score
            for answer, result in zip(answers, results, strict=True)
        ]
        parsed = [
            None if missing else result.parsed for missing, result in zip(unparsed, results, strict=True)
        ]
        scores = [result.score for result in results]
        counts, metrics = mean_scores(scores, "accuracy")
        return TaskScores(scores, parsed, unparsed, counts, metrics)

    return score


def _one_answer(rule: Callable[[str, str], ParsedScore]) -> Scorer:
    """The scorer of a rule with one right text; these rules have no known bug to correct."""
    return _scorer(lambda item, text, strict: rule(text, str(item.answer)))


VQA = Task(
    "vqa",
    "VQA accuracy over human answers",
    ("answers",),
    read_answers,
    _scorer(lambda item, text, strict: score_vqa(text, item.answers, strict=strict)),
    recognize=has_columns("answers"),
)
TEXTVQA = Task(
    "textvqa",
    "TextVQA accuracy",
    ("answers",),
    read_answers,
    _scorer(lambda item, text, strict: score_textvqa(text, item.answers, strict=strict)),
)
OCR = Task(
    "ocr",
    "a text that the answer contains",
    ("answers",),
    read_texts,
    _scorer(
        lambda item, text, strict: short_answer.score_ocr(
            text, item.answers, formula=item.groups.get("dataset") == "HME100k", strict=strict
        )
    ),
)
GQA = Task("gqa", "equal in lower case", ("answer",), read_answer, _one_answer(short_answer.score_gqa))
EXACT = Task(
    "exact",
    "equal text",
    ("answer",),
    read_answer,
    _one_answer(short_answer.score_exact),
    recognize=has_columns("question", "answer"),
)
RELAXED = Task(
    "relaxed", "numbers within 5 %", ("answer",), read_answer, _one_answer(short_answer.score_relaxed)
)
