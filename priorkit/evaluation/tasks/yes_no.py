"""Yes or no, read and counted as in POPE."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, same_instruction
from priorkit.evaluation.tasks.cells import Row, cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.pairs import pair_scores
from priorkit.scoring.answers.yes_no import read_label, read_yes_no, read_yes_no_strict
from priorkit.scoring.statistics.bootstrap import Floats, MetricFunction


def read_truth(row: Row) -> dict[str, Any]:
    """The label: ``yes`` or ``no`` in any case, or a truth value.

    Raises:
        ValueError: it is neither.
    """
    answer = cell(row, "answer")
    if isinstance(answer, bool):
        return {"answer": "yes" if answer else "no"}
    if not isinstance(answer, str) or answer.strip().lower() not in ("yes", "no"):
        raise ValueError(f"'answer' must be yes or no, got {answer!r}")
    return {"answer": read_label(answer)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Accuracy, precision, recall, F1 (yes is positive) and the share of answers read as yes.

    POPE's rule reads every answer, also a blank one (as yes), which scores so and is counted as unparsed;
    the strict reading requires a clear yes or no; anything else is wrong and counts as neither. Where the
    likelihoods of yes and no were compared, the more likely one is the answer. Pairs of questions (``pair`` and ``category``, as
    in MME) get MME's scores too.
    """
    read = read_yes_no_strict if options.strict else read_yes_no
    readings = [read(answer.text) for answer in answers]
    said = np.array([reading == "yes" for reading in readings])
    denied = np.array([reading == "no" for reading in readings])
    true = np.array([item.answer == "yes" for item in items])
    unread = ~said & ~denied
    columns = [said & true, said & ~true, denied & ~true, denied & true, unread & true, unread & ~true]
    counts = np.stack(columns, axis=1).astype(np.float64)
    scores = [float(right) for right in (said & true) | (denied & ~true)]
    metrics: MetricFunction = rates
    if all({"pair", "category"} <= set(item.groups) for item in items):
        pairs, of_pairs = pair_scores(items, scores)
        counts = np.concatenate([counts, pairs], axis=1)
        metrics = lambda sums: {**rates(sums[..., :6]), **of_pairs(sums[..., 6:])}  # noqa: E731
    unparsed = unread | np.array([not answer.text.strip() for answer in answers])
    return TaskScores(scores, list(readings), unparsed.tolist(), counts, metrics)


def rates(sums: Floats) -> dict[str, Floats]:
    """Rates from sums of true and false positives, true and false negatives, and unparsed answers.

    A rate over nothing is 0, as in POPE.
    """
    true_positive, false_positive, true_negative, false_negative, *unparsed = np.moveaxis(sums, -1, 0)
    items = sums.sum(-1)
    precision = _share(true_positive, true_positive + false_positive)
    recall = _share(true_positive, true_positive + false_negative + (unparsed[0] if unparsed else 0.0))
    return {
        "accuracy": (true_positive + true_negative) / items,
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio": (true_positive + false_positive) / items,
    }


def _share(part: Floats, total: Floats) -> Floats:
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def recognize(columns: frozenset[str], answers: Iterable[Any]) -> bool:
    """Questions whose answers are all yes or no."""
    return {"question", "answer"} <= columns and all(
        isinstance(answer, str) and answer.strip().lower() in ("yes", "no") for answer in answers
    )


YES_NO = Task(
    "yes-no",
    "yes or no",
    ("answer",),
    read_truth,
    score,
    ("accuracy", "precision", "recall", "f1", "yes_ratio", "mme_perception", "mme_cognition"),
    ("likelihood", "generation"),
    recognize=recognize,
    instruction=same_instruction("yes-no"),
    options=lambda item, form: (("yes", "Yes"), ("no", "No")),
)
