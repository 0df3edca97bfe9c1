"""Pointing: whether the patch that is most similar to a name lies on what the name means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorkit.data.columns import CAPTIONS
from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, column_means
from priorkit.evaluation.tasks.cells import Row, text_cell
from priorkit.evaluation.tasks.grounding import read_truth as read_box
from priorkit.evaluation.tasks.item import Item, ModelAnswer

NAME_COLUMNS = (*CAPTIONS, "name", "label", "entity", "expression")


def read_truth(row: Row) -> dict[str, Any]:
    """The name, from the first of the usual columns, and the box of what it means.

    Raises:
        ValueError: one of them is missing or of another form.
    """
    column = next((name for name in NAME_COLUMNS if row.get(name) is not None), NAME_COLUMNS[0])
    return {"text": text_cell(row, column, blank=False), **read_box(row)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """The pointing game (Zhang et al. 2016): the share of items whose best patch lies in the box.

    ``chance`` is the mean share of the patches that lie in the box: what a random patch would reach.
    """
    hits = [float(answer.hit) for answer in answers]
    chances = [answer.chance for answer in answers]
    counts, metrics = column_means({"pointing_accuracy": hits, "chance": chances})
    parsed = [answer.prediction for answer in answers]
    extra: dict[str, list[Any]] = {"text": [item.text for item in items], "chance": chances}
    return TaskScores(hits, parsed, [False] * len(items), counts, metrics, extra)


POINTING = Task(
    "pointing",
    "the patch that shows a name",
    ("text", "box"),
    read_truth,
    score,
    ("pointing_accuracy", "chance"),
    ("similarity",),
    alternatives={"text": NAME_COLUMNS},
    needs_question=False,
    needs_image=True,
    patches=True,
    from_predictions=False,
    rescorable=False,
)
