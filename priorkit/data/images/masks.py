"""Segmentation masks in COCO's formats: run lengths, compressed run lengths, polygons.

Source of the encodings: ``common/maskApi.c`` of cocodataset/cocoapi (``rleDecode``, ``rleFrString``).
Masks are bool arrays ``[height, width]``. pycocotools is not used: malformed masks crash it, see ARCHITECTURE.md.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

_SUPERSAMPLING = 4
"""Polygons are drawn at this many times the resolution and sampled at pixel centers."""


_BEYOND = 1.1
"""Polygons may reach so far beyond an image, as a multiple of its side; others were made for another size."""


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask that takes little memory.

    Attributes:
        counts: lengths of runs, column by column, outside first.
        height, width: of the mask in pixels.
    """

    counts: array[int]
    height: int
    width: int

    @classmethod
    def encode(cls, mask: Mask) -> RunLengths:
        """The run lengths of a mask."""
        flat = mask.T.ravel()
        ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        counts = np.diff(np.concatenate(([0], ends, [flat.size])))
        lead = [0] if flat.size and flat[0] else []
        return cls(array("l", [*lead, *counts.tolist()]), *mask.shape)

    def decode(self) -> Mask:
        """The mask, bool ``[height, width]``."""
        return decode_counts(self.counts.tolist(), self.height, self.width)


def decode_segmentation(segmentation: Any, height: int, width: int) -> Mask:
    """The mask of a COCO annotation's ``segmentation``.

    Args:
        segmentation: a list of polygons ``[x, y, x, y ...]`` in pixels, or run lengths ``{counts, size}``
            with counts as a list or as COCO's compressed text.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ValueError: it is none of these, or does not fit the image.
    """
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if list(size or []) != [height, width]:
            raise ValueError(f"the run lengths have size {size}, the image {[height, width]}")
        counts = segmentation.get("counts")
        if isinstance(counts, str | bytes):
            counts = decompress_counts(counts)
        return decode_counts(counts, height, width)
    if isinstance(segmentation, list) and segmentation:
        return draw_polygons(segmentation, height, width)
    raise ValueError(
        f"a segmentation is a list of polygons or run lengths, got {type(segmentation).__name__}"
    )


def decode_counts(counts: Any, height: int, width: int) -> Mask:
    """A mask from run lengths, column by column, outside first.

    Raises:
        ValueError: not a list of integers, or runs that do not add up to the image.
    """
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise ValueError("run lengths must be a list of non-negative integers")
    if sum(counts) != height * width:
        raise ValueError(f"the run lengths add up to {sum(counts)} pixels, the image has {height * width}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(width, height).T


def decompress_counts(text: str | bytes) -> list[int]:
    """Run lengths from COCO's compressed text.

    Five bits per character, offset by ``0``; the sixth bit means that more follow, the sign is extended; from
    the fourth run on the text contains differences from the run before the last.

    Raises:
        ValueError: the text ends within a number or contains other characters.
    """
    data = text.encode("ascii", errors="replace") if isinstance(text, str) else text
    counts: list[int] = []
    position = 0
    while position < len(data):
        value = shift = 0
        while True:
            if position >= len(data) or not 48 <= data[position] < 112:
                raise ValueError("the compressed run lengths are damaged")
            bits = data[position] - 48
            position += 1
            value |= (bits & 31) << shift
            shift += 5
            if not bits & 32:
                if bits & 16:
                    value -= 1 << shift
                break
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def draw_polygons(polygons: Sequence[Any], height: int, width: int) -> Mask:
    """The pixels whose center is in one of the polygons.

    Raises:
        ValueError: a polygon has fewer than three corners or is not a list of finite numbers.
    """
    from PIL import Image, ImageDraw

    canvas = Image.new("1", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("a polygon needs three corners or more, as x, y, x, y ...")
        if not all(map(_is_finite, polygon)):
            raise ValueError("a polygon must contain finite numbers only")
        draw.polygon([value * _SUPERSAMPLING - 0.5 for value in polygon], fill=1)
    half = _SUPERSAMPLING // 2
    return np.asarray(canvas)[half::_SUPERSAMPLING, half::_SUPERSAMPLING]


def check_extent(segmentation: Any, width: int, height: int) -> None:
    """Refuse polygons in pixels of a larger image.

    Args:
        segmentation: as :func:`decode_segmentation` reads it; run lengths pass.
        width, height: of the image in pixels.

    Raises:
        ValueError: a polygon reaches far beyond the image.
    """
    if not isinstance(segmentation, list):
        return
    for polygon in cast("list[Any]", segmentation):
        if not isinstance(polygon, list):
            continue
        corners = cast("list[Any]", polygon)
        for values, side, name in ((corners[::2], width, "width"), (corners[1::2], height, "height")):
            reach = max(filter(_is_finite, values), default=0)
            if reach > max(side * _BEYOND, side + 2):
                raise ValueError(f"a polygon reaches {reach:g}, beyond the image's {name} of {side}")


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold."""
    largest = sys.float_info.max
    return isinstance(value, int | float) and -largest <= value <= largest
