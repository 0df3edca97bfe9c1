"""Retrieval: at which rank an encoder puts an image's own text among the distinct texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from priorkit.data.columns import CAPTIONS
from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, rank_metrics, rank_scores
from priorkit.evaluation.tasks.cells import Row, text_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer

CUTOFFS = (1, 5)


def read_truth(row: Row) -> dict[str, Any]:
    """The image's text, from the first of the usual columns."""
    column = next((name for name in CAPTIONS if row.get(name) is not None), CAPTIONS[0])
    return {"text": text_cell(row, column, blank=False)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Recall at 1 and 5, mean reciprocal rank and mean rank; an item's score is its reciprocal rank."""
    ranks = np.array([answer.rank for answer in answers])
    counts, metrics = rank_scores(ranks, CUTOFFS)
    parsed = [answer.prediction for answer in answers]
    extra: dict[str, list[Any]] = {"rank": ranks.tolist(), "text": [item.text for item in items]}
    return TaskScores((1 / ranks).tolist(), parsed, [False] * len(items), counts, metrics, extra)


def recognize(columns: frozenset[str], answers: Iterable[Any]) -> bool:
    """Images with one of the usual columns of text."""
    return "image" in columns and bool(columns.intersection(CAPTIONS))


RETRIEVAL = Task(
    "retrieval",
    "an image's own text",
    ("text",),
    read_truth,
    score,
    rank_metrics(CUTOFFS),
    ("similarity",),
    alternatives={"text": CAPTIONS},
    recognize=recognize,
    needs_question=False,
    needs_image=True,
    from_predictions=False,
)
