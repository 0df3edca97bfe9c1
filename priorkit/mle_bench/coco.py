"""COCO's JSON files, instances and panoptic: how much of an image each category covers, and where."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import MAX_PIXELS
from priorkit.data.images.masks import Mask, check_extent, decode_segmentation
from priorkit.mle_bench.annotations import (
    Annotations,
    Coverage,
    CoverageOf,
    ImageSize,
    placement_of,
    placements_of,
    read_mask,
)
from priorkit.models.folder import read_json


@dataclass(frozen=True)
class _Document:
    """A COCO file with its ids brought to one form.

    Attributes:
        images: the rows of the images by id.
        annotations: those of each image by its id, with what messages call them.
        names: the categories' names by id.
    """

    images: Mapping[int | str, dict[str, Any]]
    annotations: Mapping[int | str, list[tuple[str, dict[str, Any]]]]
    names: Mapping[int | str, str]


def read_coco(source: Annotations) -> tuple[tuple[str, ...], Iterator[tuple[str, None, CoverageOf]]]:
    """The vocabulary, and for each image its file name and what measures its categories.

    Raises:
        InputError: the file is no COCO file, ids are missing or duplicates, or no annotation is of an image.
    """
    document = _read_document(source.file)
    names = document.names
    if source.layout == "panoptic":
        names = {key: _PANOPTIC_SUFFIX.sub("", name) for key, name in names.items()}

    def rows() -> Iterator[tuple[str, None, CoverageOf]]:
        for identifier, image in document.images.items():
            annotations = document.annotations.get(identifier, [])
            measure = _panoptic if source.layout == "panoptic" else _instances
            yield str(image["file_name"]), None, _bound(measure, source, names, image, annotations)

    return tuple(dict.fromkeys(names.values())), rows()


def _bound(measure: Callable[..., Coverage], *given: Any) -> CoverageOf:
    return lambda size: measure(*given, size)


_PANOPTIC_SUFFIX = re.compile(r"(-merged|-other|-stuff)+$")


def _instances(
    source: Annotations,
    names: Mapping[int | str, str],
    image: Mapping[str, Any],
    annotations: list[tuple[str, dict[str, Any]]],
    size: ImageSize,
) -> Coverage:
    width, height = _annotated_size(image, size)
    union: dict[str, Mask] = {}
    labels: dict[str, str] = {}
    for label, row in annotations:
        name = _category(names, row, label)
        labels.setdefault(name, label)
        segmentation = row.get("segmentation")
        if segmentation is None or segmentation == []:
            continue
        try:
            check_extent(segmentation, width, height)
            mask = decode_segmentation(segmentation, height, width)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
        union[name] = union[name] | mask if name in union else mask
    placed = {name: placement_of(mask) for name, mask in union.items()}
    measured = {name: placement for name, placement in placed.items() if placement is not None}
    return Coverage(measured, {name: label for name, label in labels.items() if name not in measured})


def _annotated_size(image: Mapping[str, Any], size: ImageSize) -> tuple[int, int]:
    """Width and height that the annotations refer to: those of the image's row, where they fit the file."""
    width, height = image.get("width"), image.get("height")
    if width is None or height is None:
        return size.upright
    if type(width) is not int or type(height) is not int or width < 1 or height < 1:
        raise ValueError(f"width and height must be positive integers, got {width!r} and {height!r}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels exceed the limit of {MAX_PIXELS:,}")
    if not size.fits((width, height)):
        raise ValueError(f"annotated at {width} x {height}, but the image is {size}")
    return width, height


def _panoptic(
    source: Annotations,
    names: Mapping[int | str, str],
    image: Mapping[str, Any],
    annotations: list[tuple[str, dict[str, Any]]],
    size: ImageSize,
) -> Coverage:
    _annotated_size(image, size)
    if not annotations or not annotations[0][1].get("segments_info"):
        return Coverage({})
    label, row = annotations[0]
    if len(annotations) > 1:
        raise ValueError(
            f"{label} and {annotations[1][0]} are of one image; a panoptic image has one annotation"
        )
    colors = read_mask(source.mask_path(str(row.get("file_name"))), size).astype(np.int64)
    if colors.ndim != 3:
        raise ValueError("a panoptic PNG has three channels")
    segments = colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
    category: dict[int, str] = {}
    for part in row["segments_info"]:
        identifier = _identifier(part.get("id") if isinstance(part, dict) else None)
        if not isinstance(identifier, int):
            raise ValueError(f"{label}: a segment needs a number as its id, got {part!r}")
        category[identifier] = _category(names, part, label)
    measured = placements_of(segments, category)
    return Coverage(measured, {name: label for name in category.values() if name not in measured})


def _read_document(file: Path) -> _Document:
    document = read_json(file)
    images: dict[int | str, dict[str, Any]] = {}
    file_names: set[str] = set()
    for index, row in enumerate(_rows(document, "images", file)):
        identifier = _identifier(row.get("id"))
        if identifier is None or not isinstance(row.get("file_name"), str):
            raise InputError(f"images[{index}]: an image needs id and file_name", where=str(file))
        if row["file_name"] in file_names:
            raise InputError(f"two images have the same file_name, {row['file_name']}", where=str(file))
        if identifier in images:
            raise InputError(f"two images have the id {row['id']!r}", where=str(file))
        file_names.add(row["file_name"])
        images[identifier] = row
    names: dict[int | str, str] = {}
    for row in _rows(document, "categories", file):
        identifier = _identifier(row.get("id"))
        if identifier is None or not isinstance(row.get("name"), str):
            raise InputError("a category needs id and name", where=str(file))
        if names.setdefault(identifier, row["name"].strip()) != row["name"].strip():
            raise InputError(f"two categories have the id {row['id']!r}", where=str(file))
    annotations: dict[int | str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    orphan: Any = None
    for index, row in enumerate(_rows(document, "annotations", file)):
        identifier = _identifier(row.get("image_id"))
        label = f"annotation {row['id']}" if "id" in row else f"annotations[{index}]"
        if identifier in images:
            annotations[cast("int | str", identifier)].append((label, row))
        elif orphan is None:
            orphan = (label, row.get("image_id"))
    if not annotations:
        raise InputError(
            f"no annotation is of an image: {orphan[0]} has the image_id {orphan[1]!r}, "
            f"images have ids such as {next(iter(images.values()))['id']!r}",
            where=str(file),
        )
    return _Document(images, annotations, names)


def _rows(document: Mapping[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    rows: Any = document.get(key)
    if not isinstance(rows, list) or not rows:
        raise InputError(f"no {key} in it", where=str(file))
    for index, row in enumerate(cast("list[Any]", rows)):
        if not isinstance(row, dict):
            raise InputError(f"{key}[{index}]: expected an object, got {row!r}", where=str(file))
    return cast("list[dict[str, Any]]", rows)


def _identifier(value: Any) -> int | str | None:
    """An id in one form: a number where it is one or its text, with or without leading zeros.

    >>> _identifier(7), _identifier("0007"), _identifier(7.0), _identifier("a7"), _identifier(None)
    (7, 7, 7, 'a7', None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.strip():
        text = value.strip()
        return int(text) if text.isdecimal() and len(text) < 40 else text
    return value if isinstance(value, int) else None


def _category(names: Mapping[int | str, str], row: Mapping[str, Any], label: str) -> str:
    identifier = _identifier(row.get("category_id"))
    if identifier not in names:
        raise ValueError(f"{label}: no category {row.get('category_id')!r}")
    return names[cast("int | str", identifier)]
