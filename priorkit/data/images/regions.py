"""Regions of images: boxes or masks with a text, in the forms that data sets of pairs have them.

Read are, the first that a row holds:

* ``regions``: a list of ``{text, box}`` or ``{text, mask}``; Visual Genome's ``{phrase, x, y, width, height}`` too;
* ``objects``: the structure of object-detection sets on the hub, ``bbox`` (COCO's ``x, y, width, height`` in
  pixels), ``segmentation`` and ``category``, as a list of structures or a structure of lists;
* ``noun_chunks`` or ``ref_exps``: GRIT's ``[start, end, x1, y1, x2, y2, score]``, where start and end cut the
  text out of the caption (Peng et al. 2023, "Kosmos-2").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from priorkit.core.boxes import Corners
from priorkit.data.images.decoding import MAX_PIXELS, ImageRef, upright_size
from priorkit.data.images.masks import Mask, RunLengths, check_extent, decode_segmentation
from priorkit.data.io.row_format import json_type

REGION_FIELDS = ("regions", "objects", "noun_chunks", "ref_exps")
"""Columns that hold regions; the first that a row has counts."""

SIZE_FIELDS = (("image_width", "image_height"), ("width", "height"))
"""Columns with the size in pixels that boxes refer to; that of the image where a row lacks them."""

NAME_FIELDS = ("text", "phrase", "expression", "category", "categories", "label", "labels", "name", "names")
"""Keys of a region's text."""

MASK_FIELDS = ("mask", "segmentation")
"""Keys of a region's mask, in COCO's formats."""

_TOLERANCE = 1e-6
"""Normalised corners may leave [0, 1] so far, by rounding."""


@dataclass(frozen=True, slots=True)
class ImageRegion:
    """A part of an image and what it shows.

    Attributes:
        text: its name or expression.
        box: normalised corners in the full, upright image.
        mask: its pixels, at any resolution; None where only the box is known.
    """

    text: str
    box: Corners
    mask: RunLengths | None = None


def no_class_names(column: str, key: str) -> Sequence[str]:
    """Of a file that names no classes."""
    return ()


def read_regions(
    row: Mapping[str, Any],
    image: ImageRef,
    caption: str,
    class_names: Callable[[str, str], Sequence[str]] = no_class_names,
) -> tuple[ImageRegion, ...]:
    """The regions of a row; none where it has no column of them, or an empty one.

    Args:
        row: its cells by column.
        image: its image, whose size is read where boxes are in pixels and the row does not give it.
        caption: what GRIT's spans refer to.
        class_names: names of the classes that a column's key numbers.

    Raises:
        ValueError: a region cannot be read; the message names it by its number, from 1.
        BrokenImageError: the image's size is needed and cannot be read.
    """
    column = next((name for name in REGION_FIELDS if row.get(name) is not None), None)
    if column is None:
        return ()
    found: list[ImageRegion] = []
    for number, entry in enumerate(_entries(column, row[column]), start=1):
        try:
            if column in ("noun_chunks", "ref_exps"):
                found.append(_of_span(entry, caption))
            else:
                found.append(_of_entry(entry, row, image, lambda key: class_names(column, key)))
        except ValueError as error:
            raise ValueError(f"'{column}', region {number}: {error}") from None
    return tuple(found)


def four_numbers(value: Any) -> Corners:
    """Four finite numbers.

    Raises:
        ValueError: it holds something else.
    """
    given = list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else []
    try:
        if any(isinstance(number, bool) for number in given):
            raise TypeError
        x, y, third, fourth = (float(number) for number in given)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"a box needs four numbers, got {_shown(value)}") from None
    if not all(map(math.isfinite, (x, y, third, fourth))):
        raise ValueError(f"a box needs finite numbers, got {_shown(value)}")
    return x, y, third, fourth


def scaled_box(box: Corners, size: tuple[float, float]) -> Corners:
    """``x, y, width, height`` in pixels to normalised corners; one pixel beyond the edge is clipped.

    Raises:
        ValueError: it leaves the image.
    """
    width, height = size
    x, y, wide, high = box
    if x < -1 or y < -1 or x + wide > width + 1 or y + high > height + 1:
        raise ValueError(f"the box {list(box)} leaves the image of {width:g} x {height:g} pixels")
    corners = x / width, y / height, (x + wide) / width, (y + high) / height
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in corners)
    return x1, y1, x2, y2


def image_size(row: Mapping[str, Any], wide: str, high: str) -> tuple[float, float] | None:
    """Width and height in pixels that a row gives in two columns; None where it gives none.

    Raises:
        ValueError: they are no positive numbers.
    """
    width, height = row.get(wide), row.get(high)
    if width is None or height is None:
        return None
    try:
        size = float(width), float(height)
    except (TypeError, ValueError, OverflowError):
        size = (math.nan, math.nan)
    if not all(0 < side < math.inf for side in size):
        raise ValueError(f"the image size is {width} x {height} pixels")
    return size


def _entries(column: str, value: Any) -> list[Any]:
    """The regions of a cell: of a list, or of a structure of lists."""
    if isinstance(value, list | tuple):
        return list(cast("Sequence[Any]", value))
    if not isinstance(value, Mapping):
        raise ValueError(f"'{column}' is {json_type(value)}, not a list of regions")
    if not any(cell is not None for cell in value.values()):
        return []
    lists = {key: cell for key, cell in cast("Mapping[str, Any]", value).items() if isinstance(cell, list)}
    lengths = {key: len(cell) for key, cell in lists.items()}
    if not lists or len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key}: {length}" for key, length in lengths.items()) or "none"
        raise ValueError(f"'{column}' needs lists of one length, got {listed}")
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


def _of_span(entry: Any, caption: str) -> ImageRegion:
    """A region of GRIT."""
    cells = list(cast("Sequence[Any]", entry)) if isinstance(entry, list | tuple) else []
    if len(cells) < 6:
        raise ValueError(f"expected start, end, x1, y1, x2, y2, got {_shown(entry)}")
    start, end, *_ = four_numbers([*cells[:2], 0, 0])
    if not (0 <= start < end <= len(caption) and start.is_integer() and end.is_integer()):
        raise ValueError(f"characters {start:g} to {end:g} are not in the caption of {len(caption)}")
    return ImageRegion(_checked_text(caption[int(start) : int(end)]), _normalised(four_numbers(cells[2:6])))


def _of_entry(
    entry: Any, row: Mapping[str, Any], image: ImageRef, class_names: Callable[[str], Sequence[str]]
) -> ImageRegion:
    """A region as a structure."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"expected a structure with text and box, got {_shown(entry)}")
    cells = cast("Mapping[str, Any]", entry)
    text = _text(cells, class_names)
    mask = _mask(cells, row, image)
    if cells.get("box") is not None:
        box = _normalised(four_numbers(cells["box"]))
    elif cells.get("bbox") is not None or cells.get("x") is not None:
        pixels = cells.get("bbox")
        if pixels is None:
            pixels = [cells.get(name) for name in ("x", "y", "width", "height")]
        box = _normalised(scaled_box(four_numbers(pixels), _size(row, image)))
    elif mask is not None:
        box = _box_of(mask)
    else:
        raise ValueError(f"neither box, bbox nor mask; got {', '.join(_present(cells)) or 'nothing'}")
    return ImageRegion(text, box, None if mask is None else RunLengths.encode(mask))


def _text(cells: Mapping[str, Any], class_names: Callable[[str], Sequence[str]]) -> str:
    key = next((name for name in NAME_FIELDS if cells.get(name) is not None), None)
    if key is None:
        raise ValueError(f"no text or category; got {', '.join(_present(cells)) or 'nothing'}")
    value = cells[key]
    if isinstance(value, int) and not isinstance(value, bool):
        names = class_names(key)
        if not 0 <= value < len(names):
            known = f"there are {len(names)} names" if names else "the file names no classes"
            raise ValueError(f"'{key}' is {value}, and {known}")
        value = names[value]
    return _checked_text(value)


def _checked_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its text is {json_type(value)}")
    if not value.strip():
        raise ValueError("its text is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"its text is not valid Unicode: {error.reason}") from None
    return value.strip()


def _normalised(box: Corners) -> Corners:
    """Corners within the image.

    Raises:
        ValueError: they leave it, or are in the wrong order.
    """
    if not all(-_TOLERANCE <= value <= 1 + _TOLERANCE for value in box):
        raise ValueError(f"the box {list(box)} leaves [0, 1]; expected normalised x1, y1, x2, y2")
    x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"the box {list(box)} has reversed corners or no area; expected x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def _size(row: Mapping[str, Any], image: ImageRef) -> tuple[float, float]:
    """Width and height in pixels that a row's boxes refer to."""
    given = (image_size(row, wide, high) for wide, high in SIZE_FIELDS)
    return next((size for size in given if size is not None), None) or upright_size(image)


def _mask(cells: Mapping[str, Any], row: Mapping[str, Any], image: ImageRef) -> Mask | None:
    segmentation = next((cells[name] for name in MASK_FIELDS if cells.get(name) not in (None, [])), None)
    if segmentation is None:
        return None
    width, height = map(round, _size(row, image))
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}")
    check_extent(segmentation, width, height)
    mask = decode_segmentation(segmentation, height, width)
    if not mask.any():
        raise ValueError("its mask is empty")
    return mask


def _box_of(mask: Mask) -> Corners:
    """Normalised corners around a mask's pixels."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def _present(cells: Mapping[str, Any]) -> Iterable[str]:
    return (key for key, value in cells.items() if value is not None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
