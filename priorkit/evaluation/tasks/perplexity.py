"""Perplexity: log-probabilities of full documents in rolling windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, has_columns
from priorkit.evaluation.tasks.cells import Row, text_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.language_metrics import RollingText, bits_per_byte
from priorkit.scoring.statistics.bootstrap import Floats


def read_truth(row: Row) -> dict[str, Any]:
    """The document."""
    return {"text": text_cell(row, "text", blank=False)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """``perplexity`` per token, per word and per byte, and bits per byte; an item's score is the last.

    Sums over all documents come first, then one division and the exponential, as in
    lm-evaluation-harness; documents are what the bootstrap resamples.
    """
    texts = [
        RollingText.of(item.text, answer.loglikelihoods[0])
        for item, answer in zip(items, answers, strict=True)
    ]
    counts = np.array(
        [
            [text.loglikelihood, answer.tokens[0], text.words, text.bytes]
            for text, answer in zip(texts, answers, strict=True)
        ],
        dtype=np.float64,
    )
    scores = [bits_per_byte(text.loglikelihood, text.bytes) for text in texts]
    extra: dict[str, list[Any]] = {
        "loglikelihoods": [list(answer.loglikelihoods) for answer in answers],
        "tokens": [answer.tokens[0] for answer in answers],
    }
    return TaskScores(scores, [None] * len(items), [False] * len(items), counts, _metrics, extra)


def _metrics(sums: Floats) -> dict[str, Floats]:
    loglikelihood, tokens, words, size = np.moveaxis(sums, -1, 0)
    return {
        "perplexity": np.exp(-loglikelihood / tokens),
        "word_perplexity": np.exp(-loglikelihood / words),
        "byte_perplexity": np.exp(-loglikelihood / size),
        "bits_per_byte": -loglikelihood / size / math.log(2),
    }


PERPLEXITY = Task(
    "perplexity",
    "documents",
    ("text",),
    read_truth,
    score,
    ("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"),
    ("likelihood",),
    recognize=has_columns("text"),
    needs_question=False,
    documents=True,
    from_predictions=False,
    rescorable=False,
)
