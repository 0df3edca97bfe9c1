"""Continuation: how well the one right text that follows a context is predicted (LAMBADA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores
from priorkit.evaluation.tasks.cells import Row, text_cell
from priorkit.evaluation.tasks.choice import choice_instruction
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.statistics.bootstrap import Floats


def read_truth(row: Row) -> dict[str, Any]:
    """The text that follows, as the one option."""
    return {"choices": (text_cell(row, "answer", blank=False),), "answer": 0}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """``perplexity`` of the texts, each counted once whatever its tokens, as in lm-evaluation-harness.

    An item's score is the log-probability of its text.
    """
    scores = [answer.loglikelihoods[0] for answer in answers]
    counts = np.stack([np.ones(len(items)), np.array(scores)], axis=1)
    extra: dict[str, list[Any]] = {
        "answer": [item.choices[0] for item in items],
        "loglikelihoods": [list(answer.loglikelihoods) for answer in answers],
        "tokens": [answer.tokens[0] for answer in answers],
    }
    return TaskScores(scores, [None] * len(items), [False] * len(items), counts, _metrics, extra)


def _metrics(sums: Floats) -> dict[str, Floats]:
    return {"perplexity": np.exp(-sums[..., 1] / sums[..., 0])}


CONTINUATION = Task(
    "continuation",
    "the likelihood of the text that follows",
    ("answer",),
    read_truth,
    score,
    ("perplexity",),
    ("likelihood",),
    instruction=choice_instruction,
    from_predictions=False,
)
