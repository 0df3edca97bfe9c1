"""Short answers: VQA v2, TextVQA, GQA, exact match, ChartQA's relaxed accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from priorkit.evaluation.tasks.base import (
    Row,
    Scorer,
    ScoringOptions,
    Task,
    TaskScores,
    mean_scores,
    text_cell,
    texts_cell,
)
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers import short_answer
from priorkit.scoring.answers.parsed_score import ParsedScore as Reading
from priorkit.scoring.answers.vqa import score_textvqa, score_vqa


def read_answer(row: Row) -> dict[str, Any]:
    """The one right text, not blank: a blank answer would score against it."""
    return {"answer": text_cell(row, "answer", blank=False)}


def read_answers(row: Row) -> dict[str, Any]:
    """The human answers, at least one; people may leave one blank."""
    return {"answers": texts_cell(row, "answers")}


def read_texts(row: Row) -> dict[str, Any]:
    """The texts to be read, at least one and none blank: a blank one occurs in every answer.

    Raises:
        ValueError: one is blank.
    """
    answers = texts_cell(row, "answers")
    if blank := [place for place, answer in enumerate(answers) if not answer.strip()]:
        raise ValueError(f"'answers'[{blank[0]}] is empty")
    return {"answers": answers}


def _scorer(read: Callable[[Item, str, bool], Reading]) -> Scorer:
    """Mean of the rule's scores; a blank answer that scores nothing counts as unparsed.

    Args:
        read: the rule, of the item, the answer and whether known bugs of the official rule are mended.
    """

    def score(items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions) -> TaskScores:
        found = [
            read(item, answer.prediction, rules.strict) for item, answer in zip(items, answers, strict=True)
        ]
        unparsed = [
            not answer.prediction.strip() and not reading.score
            for answer, reading in zip(answers, found, strict=True)
        ]
        parsed = [
            None if missing else reading.parsed for missing, reading in zip(unparsed, found, strict=True)
        ]
        scores = [reading.score for reading in found]
        counts, metrics = mean_scores(scores, "accuracy")
        return TaskScores(scores, parsed, unparsed, counts, metrics)

    return score


def _one(read: Callable[[str, str], Reading]) -> Scorer:
    """A rule against the one right text, without a known bug."""
    return _scorer(lambda item, text, strict: read(text, str(item.answer)))


VQA = Task(
    "vqa",
    ("answers",),
    read_answers,
    _scorer(lambda item, text, strict: score_vqa(text, item.answers, strict=strict)),
)
TEXTVQA = Task(
    "textvqa",
    ("answers",),
    read_answers,
    _scorer(lambda item, text, strict: score_textvqa(text, item.answers, strict=strict)),
)
OCR = Task(
    "ocr",
    ("answers",),
    read_texts,
    _scorer(
        lambda item, text, strict: short_answer.score_ocr(
            text, item.answers, formula=item.groups.get("dataset") == "HME100k", strict=strict
        )
    ),
)
GQA = Task("gqa", ("answer",), read_answer, _one(short_answer.score_gqa))
EXACT = Task("exact", ("answer",), read_answer, _one(short_answer.score_exact))
RELAXED = Task("relaxed", ("answer",), read_answer, _one(short_answer.score_relaxed))
