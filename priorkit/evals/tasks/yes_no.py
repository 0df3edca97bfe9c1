"""Yes or no, read and counted as in POPE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evals.items import Answer, Item
from priorkit.evals.statistics import Floats
from priorkit.evals.tasks.task import Parser, Row, Scored, Task, cell
from priorkit.scoring.yes_no import read_label, read_yes_no


def read_row(row: Row) -> dict[str, Any]:
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


def score(items: Sequence[Item], answers: Sequence[Answer], parser: Parser) -> Scored:
    """Accuracy, precision, recall, F1 (yes is positive) and the share of answers read as yes.

    POPE's rule reads every answer, also an empty one (as yes), so that nothing is ever unparsed.
    """
    readings = [read_yes_no(answer.prediction) for answer in answers]
    said = np.array([reading == "yes" for reading in readings])
    true = np.array([item.answer == "yes" for item in items])
    counts = np.stack([said & true, said & ~true, ~said & ~true, ~said & true], axis=1).astype(np.float64)
    scores = [float(right) for right in said == true]
    return Scored(scores, list(readings), [False] * len(items), counts, rates)


def rates(sums: Floats) -> dict[str, Floats]:
    """POPE's rates from sums of true positives, false positives, true and false negatives; 0 over nothing."""
    true_positive, false_positive, true_negative, false_negative = np.moveaxis(sums, -1, 0)
    items = sums.sum(-1)
    precision = _share(true_positive, true_positive + false_positive)
    recall = _share(true_positive, true_positive + false_negative)
    return {
        "accuracy": (true_positive + true_negative) / items,
        "precision": precision,
        "recall": recall,
        "f1": _share(2 * precision * recall, precision + recall),
        "yes_ratio": (true_positive + false_positive) / items,
    }


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


YES_NO = Task("yes-no", ("answer",), read_row, score, ("likelihood", "generation"), "yes-no")
