"""Ranking: at which rank the likelihood puts the true one among many candidate answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import Row, ScoringOptions, Task, TaskScores
from priorkit.evaluation.tasks.choice import index_cell, options_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.statistics.bootstrap import Floats

MOST = 1000
METRICS = ("mean_rank", "mrr", "recall_at_1", "recall_at_5", "recall_at_10")


def read_row(row: Row) -> dict[str, Any]:
    """The candidates and the index of the true one."""
    choices = options_cell(row, MOST)
    return {"choices": choices, "answer": index_cell(row, choices)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions) -> TaskScores:
    """Mean reciprocal rank, recall at 1, 5 and 10, mean rank; an item's score is its reciprocal rank.

    Candidates are ordered by the mean log-probability of their tokens, as VisDial's generative models
    are; a tie counts half.
    """
    ranks = np.array([_rank(item, answer) for item, answer in zip(items, answers, strict=True)])
    columns = [np.ones(len(ranks)), ranks, 1 / ranks, ranks <= 1, ranks <= 5, ranks <= 10]
    counts = np.stack(columns, axis=1).astype(np.float64)
    extra: dict[str, list[Any]] = {
        "rank": ranks.tolist(),
        "loglikelihoods": [list(answer.loglikelihoods) for answer in answers],
        "tokens": [list(answer.tokens) for answer in answers],
    }
    parsed = [answer.prediction for answer in answers]
    return TaskScores((1 / ranks).tolist(), parsed, [False] * len(items), counts, _metrics, extra)


def _rank(item: Item, answer: ModelAnswer) -> float:
    values = np.array(answer.loglikelihoods) / np.maximum(np.array(answer.tokens), 1)
    true = values[int(item.answer or 0)]
    return 1.0 + float((values > true).sum()) + float((values == true).sum() - 1) / 2


def _metrics(sums: Floats) -> dict[str, Floats]:
    return {name: sums[..., place] / sums[..., 0] for place, name in enumerate(METRICS, start=1)}


RANKING = Task(
    "ranking", ("choices", "answer"), read_row, score, ("likelihood",), "short", from_predictions=False,
    metrics=METRICS,
)  # fmt: skip
