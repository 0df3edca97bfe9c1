"""Ranking: at which rank the likelihood puts the true one among many candidate answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, rank_metrics, rank_scores
from priorkit.evaluation.tasks.cells import Row
from priorkit.evaluation.tasks.choice import index_cell, options_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer

MOST = 1000
CUTOFFS = (1, 5, 10)


def read_truth(row: Row) -> dict[str, Any]:
    """The candidates and the index of the true one."""
    choices = options_cell(row, MOST)
    return {"choices": choices, "answer": index_cell(row, choices)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Mean reciprocal rank, recall at 1, 5 and 10, mean rank; an item's score is its reciprocal rank.

    Candidates are ordered by the mean log-probability of their tokens, as VisDial's generative models
    are; ties get their mean rank.
    """
    ranks = np.array([_rank(item, answer) for item, answer in zip(items, answers, strict=True)])
    counts, metrics = rank_scores(ranks, CUTOFFS)
    extra: dict[str, list[Any]] = {
        "rank": ranks.tolist(),
        "loglikelihoods": [list(answer.loglikelihoods) for answer in answers],
        "tokens": [list(answer.tokens) for answer in answers],
    }
    parsed = [answer.prediction for answer in answers]
    return TaskScores((1 / ranks).tolist(), parsed, [False] * len(items), counts, metrics, extra)


def _rank(item: Item, answer: ModelAnswer) -> float:
    values = np.array(answer.loglikelihoods) / np.maximum(np.array(answer.tokens), 1)
    true = values[int(item.answer or 0)]
    return 1.0 + float((values > true).sum()) + float((values == true).sum() - 1) / 2


RANKING = Task(
    "ranking",
    "many candidate answers",
    ("choices", "answer"),
    read_truth,
    score,
    rank_metrics(CUTOFFS),
    ("likelihood",),
    from_predictions=False,
)
