"""Augmentation of images whose texts name places: boxes and the words left and right are adjusted; no box is cut."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from priorkit.core.boxes import FULL_IMAGE, BoxWriter, Corners, check_box
from priorkit.data.images.augmentation import View

_SIDE = re.compile(r"\b(left|right)(?=(?:most|wards?|hand(?:ed|er)?|side)?\b)", re.IGNORECASE)

_OTHER_SENSE = re.compile(
    r"\ball right\b|, right\?|\bright (?:now|away|answer|choice|angles?)\b"
    r"|\b(?:is|are|was|were|been|has|have|had|nothing|anything|much) left\b(?![ -](?:of|side|hand))",
    re.IGNORECASE,
)
"""Left and right in other senses; an image with such a text is not mirrored."""

_PLACE = re.compile(
    r"\b(?:left|right|top|bottom|upper|lower|middle|cent(?:er|re)|corner|edge|side|first|second|third|last"
    r"|nearest|farthest|closest)(?:most|wards?|hand)?\b",
    re.IGNORECASE,
)
"""Words that may become false when a crop removes part of the image."""

_OTHER_SIDE = {"left": "right", "right": "left", "LEFT": "RIGHT", "RIGHT": "LEFT"} | {
    "Left": "Right",
    "Right": "Left",
}


def swap_sides(text: str) -> str:
    """A text about the mirrored image: left for right, also in leftmost, left-hand, leftwards and so on.

    Swapping twice restores the text.
    """
    return _SIDE.sub(lambda match: _OTHER_SIDE.get(match[0], match[0]), text)


def fit_view(view: View, texts: Sequence[str], size: tuple[int, int], boxes: BoxWriter) -> View:
    """The view closest to the one drawn that keeps everything the texts say about their image true.

    A crop keeps its size where every box fits into it, and is moved to contain all boxes completely;
    it grows where they do not fit. A move ends where a box would leave the image. Texts with words of place
    (top, left, second ...) get neither, as both may change what else is visible; texts in
    which left or right have another sense are not mirrored.

    Args:
        view: as it was drawn.
        texts: a conversation's turns.
        size: height and width in pixels of the prepared image.
        boxes: the format of the boxes in the texts.
    """
    if view.mirrored and any(_OTHER_SENSE.search(text) for text in texts):
        view = replace(view, mirrored=False)
    if any(_PLACE.search(boxes.notation.pattern.sub("", text)) for text in texts):
        return replace(view, crop=None, move=(0.0, 0.0))
    found = boxes.boxes_in(texts)
    if not found:
        return view
    left, top, right, bottom = (
        choose(values) for choose, values in zip((min, min, max, max), zip(*found, strict=True), strict=True)
    )
    if view.crop is not None:
        x1, x2 = _around(view.crop[0], view.crop[2], left, right)
        y1, y2 = _around(view.crop[1], view.crop[3], top, bottom)
        view = replace(view, crop=(x1, y1, x2, y2))
        left, right = (left - x1) / (x2 - x1), (right - x1) / (x2 - x1)
        top, bottom = (top - y1) / (y2 - y1), (bottom - y1) / (y2 - y1)
    down, across = (
        _inside(share, low, high, pixels)
        for share, low, high, pixels in zip(view.move, (top, left), (bottom, right), size, strict=True)
    )
    return replace(view, move=(down, across))


def _around(start: float, stop: float, low: float, high: float) -> tuple[float, float]:
    """An interval within [0, 1], moved and if necessary lengthened to contain another one."""
    length = max(stop - start, high - low)
    # Its relative position among all positions becomes that among the positions that contain the box.
    share = start / (1 - (stop - start)) if stop - start < 1 else 0.0
    least, most = max(0.0, high - length), min(low, 1 - length)
    begin = least + min(max(share, 0.0), 1.0) * max(most - least, 0.0)
    return begin, min(begin + length, 1.0)


def _inside(share: float, low: float, high: float, pixels: int) -> float:
    """A shift in integer pixels that keeps [low, high] within the image."""
    least, most = math.ceil((high - 1) * pixels - 1e-9), math.floor(low * pixels + 1e-9)
    return min(max(round(share * pixels), least), most) / pixels


def seen_text(text: str, view: View, size: tuple[int, int], boxes: BoxWriter) -> str:
    """A text adjusted to the view of its image: boxes moved, sides swapped where mirrored.

    A mirrored box in decimals keeps its spelling; one that was cropped or moved has three decimals at least.

    Args:
        text: a turn, with boxes relative to the full image.
        view: as :func:`fit_view` gave it.
        size: height and width in pixels of the prepared image.
        boxes: the format of its boxes.
    """

    def place(match: re.Match[str]) -> str:
        if boxes.format == "decimals":
            return _seen_decimals(match, view, size)
        corners = boxes.corners(match)
        try:
            check_box(corners)
        except ValueError:
            return match[0]
        x1, y1, x2, y2 = _moved(corners, view, size) if _moves(view) else corners
        return boxes.write((1 - x2, y1, 1 - x1, y2) if view.mirrored else (x1, y1, x2, y2))

    placed = boxes.notation.pattern.sub(place, text)
    return swap_sides(placed) if view.mirrored else placed


def _seen_decimals(match: re.Match[str], view: View, size: tuple[int, int]) -> str:
    numbers = list(match.groups())
    if _moves(view):
        decimals = max(3, *(len(number.partition(".")[2]) for number in numbers))
        x1, y1, x2, y2 = map(float, numbers)
        numbers = [f"{value:.{decimals}f}" for value in _moved((x1, y1, x2, y2), view, size)]
    if view.mirrored:
        numbers[0], numbers[2] = (str(1 - Decimal(number)) for number in (numbers[2], numbers[0]))
    pieces: list[str] = []
    at = match.start()
    for group, number in enumerate(numbers, start=1):
        pieces += match.string[at : match.start(group)], number
        at = match.end(group)
    return "".join([*pieces, match.string[at : match.end()]])


def _moves(view: View) -> bool:
    return view.crop is not None or view.move != (0.0, 0.0)


def _moved(corners: Corners, view: View, size: tuple[int, int]) -> Corners:
    """Corners in a view, before it is mirrored, within the image."""
    placed = replace(view, mirrored=False).place(corners, FULL_IMAGE, size)
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in placed)
    return left, top, right, bottom
