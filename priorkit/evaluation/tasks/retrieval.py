"""Retrieval: at which rank an encoder puts an image's own text among the distinct texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.data.images.pairs import TEXT_COLUMNS
from priorkit.evaluation.tasks.base import Row, ScoringOptions, Task, TaskScores, text_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.statistics.bootstrap import Floats

METRICS = ("mean_rank", "mrr", "recall_at_1", "recall_at_5")


def read_row(row: Row) -> dict[str, Any]:
    """The image's text, from the first of the usual columns."""
    column = next((name for name in TEXT_COLUMNS if row.get(name) is not None), TEXT_COLUMNS[0])
    return {"text": text_cell(row, column, blank=False)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions) -> TaskScores:
    """Recall at 1 and 5, mean reciprocal rank and mean rank; an item's score is its reciprocal rank."""
    ranks = np.array([answer.rank for answer in answers])
    columns = [np.ones(len(ranks)), ranks, 1 / ranks, ranks <= 1, ranks <= 5]
    counts = np.stack(columns, axis=1).astype(np.float64)
    parsed = [answer.prediction for answer in answers]
    extra: dict[str, list[Any]] = {"rank": ranks.tolist(), "text": [item.text for item in items]}
    return TaskScores((1 / ranks).tolist(), parsed, [False] * len(items), counts, _metrics, extra)


def _metrics(sums: Floats) -> dict[str, Floats]:
    return {name: sums[..., place] / sums[..., 0] for place, name in enumerate(METRICS, start=1)}


RETRIEVAL = Task(
    "retrieval", ("text",), read_row, score, ("similarity",), from_predictions=False, metrics=METRICS
)
