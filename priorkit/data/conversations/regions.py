"""Regions as instructions: expression -> box and box -> expression, from RefCOCO-style and Visual Genome rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from priorkit.core.boxes import BoxWriter, Corners, check_box
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import COMMON, PLACEHOLDER, Conversation, Turn, has_turns
from priorkit.data.images.decoding import BrokenImageError, ImageRef, upright_size
from priorkit.data.images.regions import four_numbers, image_size, scaled_box
from priorkit.data.io.rejects import Rejects

REGION_COLUMNS = ("sentences", "expression", "phrase", "regions")
"""A row with one of these columns holds regions: RefCOCO's sentences or expression, Visual Genome's phrase
(one region a row) or regions (all regions of an image)."""

REGION_IMAGES = ("file_name", "image_path")
"""Further columns of the image of a row of regions."""

LOCATE = (
    "Where is {}?",
    "Can you locate {} and give its coordinates?",
    "Find {}.",
)
"""Questions for a box; the request for the format follows."""

DESCRIBE = (
    "What is in the region {}?",
    "Describe the region {} in a few words.",
    "Give a short expression for the region {}.",
)
"""Questions for an expression."""


def box_text(box: Sequence[float], writer: BoxWriter) -> str:
    """Normalized corners as text, such as ``[0.440,0.060,0.650,0.367]``.

    Raises:
        ValueError: outside [0, 1] by a thousandth or more, or less than a thousandth wide or high.
    """
    check_box([round(float(value), 3) for value in box], str(list(box)))
    return writer.write([min(max(float(value), 0.0), 1.0) for value in box])


@dataclass(frozen=True, slots=True)
class Fault:
    """A region that cannot be used.

    Attributes:
        region: its number in the row, from 1.
        reason: why.
    """

    region: int
    reason: str


def usable_regions(
    row: Mapping[str, Any],
    file: Path,
    number: int,
    writer: BoxWriter,
    rejects: Rejects,
    reserved: Sequence[str] = (),
    layout: RowLayout = COMMON,
) -> list[Conversation]:
    """The conversations of :func:`conversations_of_regions`; regions are counted as rows, unusable ones rejected.

    Raises:
        ValueError, BrokenImageError: as there.
    """
    conversations, faults = conversations_of_regions(row, file, number, writer, reserved, layout)
    for fault in faults:
        rejects.add(str(file), number, fault.reason, fault.region)
    rejects.accept(len(conversations) // 2)
    return conversations


def conversations_of_regions(
    row: Mapping[str, Any],
    file: Path,
    number: int,
    writer: BoxWriter,
    reserved: Sequence[str] = (),
    layout: RowLayout = COMMON,
) -> tuple[list[Conversation], list[Fault]]:
    """Two conversations for each expression of a row: expression to box and box to expression.

    Pixel boxes are divided by the image's *original* size: ``width`` and ``height`` of the row, or of
    the image itself. A row holds an image and

    * RefCOCO: ``sentences`` (list of texts or of objects with ``sent`` or ``raw``) or ``expression``, and
      ``bbox`` ``[x, y, width, height]`` in pixels, or ``box``, normalised corners;
    * Visual Genome: ``phrase`` with ``x, y, width, height`` in pixels, or ``regions``, a list of such.
      There ``width`` and ``height`` are the region's; the image's are ``image_width``, ``image_height``;
    * as ``pretrain-encoder`` reads them: ``regions``, a list of ``text`` and ``box``, normalised corners.

    Args:
        row: its cells by column.
        file: the row's file.
        number: its number in the file.
        writer: writes the boxes.
        reserved: texts that no expression may hold.
        layout: the column of images, and where they are.

    Returns:
        The conversations, and what is wrong with each of the other regions.

    Raises:
        ValueError: no region, or an invalid image size.
        BrokenImageError: no image.
    """
    name = str(row.get("id", number))
    image = layout.image_of(image_cell(row, layout), file, name)
    conversations: list[Conversation] = []
    faults: list[Fault] = []
    regions, read = _regions(row, image)
    for index, region in enumerate(regions):
        try:
            expression, box = read(region)
            if held := [text for text in (PLACEHOLDER, *reserved) if text in expression]:
                raise ValueError(f"the expression holds {held[0]}")
            text = box_text(box, writer)
        except ValueError as error:
            faults.append(Fault(index + 1, str(error)))
            continue
        turn = number + index
        locate = f"{LOCATE[turn % len(LOCATE)].format(expression)} {writer.request}"
        questions = locate, DESCRIBE[turn % len(DESCRIBE)].format(text)
        for way, (question, answer) in enumerate(zip(questions, (text, expression), strict=True)):
            turns = Turn("user", f"{PLACEHOLDER}\n{question}"), Turn("assistant", answer)
            conversations.append(Conversation(f"{name}.{index}.{way}", turns, (image,), "grounding"))
    if not regions:
        raise ValueError("no expression with a box")
    return conversations, faults


def holds_regions(row: Mapping[str, Any]) -> bool:
    """Whether a row holds regions: it has one of their columns, and no turns."""
    return not has_turns(name for name, value in row.items() if value is not None) and not set(
        REGION_COLUMNS
    ).isdisjoint(row)


def image_cell(row: Mapping[str, Any], layout: RowLayout) -> Any:
    """The cell of a row of regions that holds its image.

    Raises:
        BrokenImageError: there is none.
    """
    for column in (*layout.image, *REGION_IMAGES):
        if row.get(column) is not None:
            return row[column]
    raise BrokenImageError("no image given")


def _regions(
    row: Mapping[str, Any], image: ImageRef
) -> tuple[list[Any], Callable[[Any], tuple[str, Corners]]]:
    """The cells that hold a row's regions, and the function that reads a cell: expression and normalized corners."""
    if row.get("regions") is not None or row.get("phrase") is not None:
        listed = row.get("regions") is not None
        size = image_size(row, "image_width", "image_height")
        if listed:
            size = size or image_size(row, "width", "height")
        size = size or upright_size(image)
        regions = _listed(row["regions"]) if listed else [row]
        return regions, lambda region: (_phrase(region), _region_box(region, size))
    given = row.get("sentences")
    cells = _expressions(row.get("expression") if given is None else given)
    if row.get("box") is not None:
        return cells, lambda cell: (_text(cell), four_numbers(row["box"]))
    size = image_size(row, "width", "height") or upright_size(image)
    return cells, lambda cell: (_text(cell), scaled_box(four_numbers(row.get("bbox")), size))


def _expressions(given: Any) -> list[Any]:
    """Expressions without repetition; values that are not text are unchanged."""
    cells: list[Any] = []
    for item in _listed(given):
        text = (item.get("sent") or item.get("raw")) if isinstance(item, Mapping) else item
        cell = text.strip() if isinstance(text, str) else item
        if cell not in cells:
            cells.append(cell)
    return cells


def _text(cell: Any) -> str:
    if not isinstance(cell, str) or not cell:
        raise ValueError(f"an expression is not text: {json.dumps(cell, default=str)[:80]}")
    return cell


def _phrase(region: Any) -> str:
    text = (region.get("phrase") or region.get("text")) if isinstance(region, Mapping) else None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("a region has no phrase or text")
    return text.strip()


def _region_box(region: Mapping[str, Any], size: tuple[float, float]) -> Corners:
    """Normalized corners as they are given, or from Visual Genome's pixels."""
    if region.get("box") is not None:
        return four_numbers(region["box"])
    return scaled_box(four_numbers([region.get(name) for name in ("x", "y", "width", "height")]), size)


def _listed(value: Any) -> list[Any]:
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]
