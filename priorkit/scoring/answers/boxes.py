"""Boxes in answers: parsing, intersection over union, accuracy at a threshold.

There is no official scorer for boxes in text. Parsing is strict: a malformed box is never repaired.
lmms-eval's RefCOCO task differs: plain decimals only, no range check, a malformed box becomes [0, 0, 0, 0].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from priorkit.scoring.answers.box_formats import find_box


class Box(NamedTuple):
    """A box by its corners, normalized by the image's width and height."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def area(self) -> float:
        """Share of the image that the box covers."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)


def read_box(answer: str, width: float | None = None, height: float | None = None) -> Box | None:
    """Parse the first box of an answer, in any form of :data:`~priorkit.scoring.answers.box_formats.BOX_FORMATS`.

    Brackets with fewer or more than four numbers, or with anything else, are skipped. Only the
    first box counts: with a number outside the image, or corners in the wrong order, it is malformed; it is
    neither clipped nor swapped, and later boxes are ignored.

    Args:
        answer: the text.
        width: x of the image's right edge in the declared coordinates: 1, 1000, or a number of pixels; None for
            those that are usual for the form. Forms with coordinates of their own are read by these.
        height: y of its lower edge, likewise.

    Returns:
        The box, or None if there is none or it is malformed.
    """
    match = find_box(answer)
    if match is None:
        return None
    (x1, y1, x2, y2), form = match
    wide, high = form.usual if width is None else width, form.usual if height is None else height
    box = Box(x1 / wide, y1 / high, x2 / wide, y2 / high) if form.declared else Box(x1, y1, x2, y2)
    in_range = all(0 <= number <= 1 for number in box)
    return box if in_range and box.x1 < box.x2 and box.y1 < box.y2 else None


def iou(box: Box | None, truth: Box) -> float:
    """Intersection over union as in ``torchvision.ops.box_iou``; 0 without a box."""
    if box is None:
        return 0.0
    width = min(box.x2, truth.x2) - max(box.x1, truth.x1)
    height = min(box.y2, truth.y2) - max(box.y1, truth.y1)
    intersection = max(width, 0.0) * max(height, 0.0)
    union = box.area + truth.area - intersection
    return intersection / union if union > 0 else 0.0


def accuracy_at(ious: Sequence[float], threshold: float = 0.5) -> float:
    """Share of items whose IoU reaches the threshold (``>=``); 0 for no items."""
    return sum(value >= threshold for value in ious) / len(ious) if ious else 0.0
