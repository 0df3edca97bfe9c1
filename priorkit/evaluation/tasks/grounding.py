"""Grounding: the box in an answer against the true one, normalised corners on both sides once it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from priorkit.core.errors import InputError
from priorkit.evaluation.tasks.base import (
    BoxSpace,
    ScoringOptions,
    Task,
    TaskScores,
    has_columns,
    same_instruction,
)
from priorkit.evaluation.tasks.cells import Row, numbers_cell
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.boxes import Box, accuracy_at, iou, read_box
from priorkit.scoring.statistics.bootstrap import Floats

CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of the IoU curve."""


def read_truth(row: Row) -> dict[str, Any]:
    """The true box.

    Raises:
        ValueError: it is not normalised, or its corners are in the wrong order.
    """
    box = Box(*numbers_cell(row, "box", 4))
    if not all(0 <= number <= 1 for number in box) or box.x1 >= box.x2 or box.y1 >= box.y2:
        raise ValueError(f"'box' must be normalised x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {list(box)}")
    return {"box": box}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Accuracy at every threshold of the IoU curve, and mean IoU; without a well-formed box all are 0.

    Raises:
        InputError: boxes are written in pixels, and the size of an item's image is not known.
    """
    boxes = [
        read_box(answer.text, *_extent(item, options.box_space))
        for item, answer in zip(items, answers, strict=True)
    ]
    overlaps = [iou(box, _truth(item)) for box, item in zip(boxes, items, strict=True)]
    scores = [accuracy_at([overlap]) for overlap in overlaps]
    reached = [[accuracy_at([overlap], threshold) for threshold in CURVE] for overlap in overlaps]
    columns = [np.ones((len(items), 1)), np.array(overlaps)[:, None], np.array(reached)]
    counts = np.concatenate(columns, axis=1)
    parsed = [None if box is None else list(box) for box in boxes]
    return TaskScores(
        scores, parsed, [box is None for box in boxes], counts, _metrics, {"iou": list(overlaps)}
    )


_SIDES: Mapping[BoxSpace, float | None] = MappingProxyType({"auto": None, "unit": 1.0, "1000": 1000.0})


def _extent(item: Item, space: BoxSpace) -> tuple[float | None, float | None]:
    """Width and height of the image in the coordinates of the answers' boxes; None for those usual for their form."""
    if space != "pixels":
        return _SIDES[space], _SIDES[space]
    if item.image_size is None:
        raise InputError(
            f"the size of the image of item {item.id} is not known, and its box is in pixels",
            where="--box-space pixels",
            hint="give every item 'image_size': [width, height]",
        )
    return float(item.image_size[0]), float(item.image_size[1])


def _metrics(sums: Floats) -> dict[str, Floats]:
    """``accuracy_at_0.5`` comes first: it is the headline."""
    shares = sums[..., 1:] / sums[..., :1]
    curve = {f"accuracy_at_{threshold}": shares[..., index] for index, threshold in enumerate(CURVE, start=1)}
    return {"accuracy_at_0.5": curve["accuracy_at_0.5"], "mean_iou": shares[..., 0], **curve}


def _truth(item: Item) -> Box:
    if item.box is None:
        raise TypeError(f"item {item.id} has no box")
    return item.box


GROUNDING = Task(
    "grounding",
    "boxes",
    ("box",),
    read_truth,
    score,
    tuple(
        dict.fromkeys(["accuracy_at_0.5", "mean_iou", *(f"accuracy_at_{threshold}" for threshold in CURVE)])
    ),
    recognize=has_columns("box"),
    boxes=True,
    instruction=same_instruction("grounding"),
)
