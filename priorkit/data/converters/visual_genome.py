"""Visual Genome's region descriptions as published: ``region_descriptions.json`` and ``image_data.json``.

Both are one array, read element by element. Of each image its folder and its size are held (a hundred bytes each).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from priorkit.core.boxes import check_box
from priorkit.core.errors import InputError
from priorkit.core.json_text import UnusableJsonError
from priorkit.data.converters.base import ConverterOptions, Row, inside, text_of
from priorkit.data.images.regions import four_numbers, scaled_box
from priorkit.data.io.json_array import array_elements
from priorkit.data.io.rejects import Rejects

REGIONS, IMAGES = "region_descriptions.json", "image_data.json"

SPLIT = "train"
"""Visual Genome has no splits."""


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a row per image with its usable regions, as :mod:`priorkit.data.conversations.regions` reads them.

    Raises:
        InputError: a file is missing or damaged.
    """
    file = source if source.is_file() else source / REGIONS
    for needed in (file, file.with_name(IMAGES)):
        if not needed.is_file():
            raise InputError(f"{needed.name} is missing", where=str(needed.parent))
    images = dict(_images(file.with_name(IMAGES)))
    for number, item in enumerate(array_elements(file), start=1):
        if isinstance(item, UnusableJsonError):
            rejects.add(str(file), number, item.msg)
            continue
        try:
            row = _row(item, images, options, rejects, (str(file), number))
        except (KeyError, TypeError, ValueError) as error:
            rejects.add(str(file), number, f"no {error}" if isinstance(error, KeyError) else str(error))
            continue
        if row["regions"]:
            yield SPLIT, row


def _images(file: Path) -> Iterator[tuple[Any, tuple[str, float, float]]]:
    """File, width and height of each image by its id."""
    for number, item in enumerate(array_elements(file), start=1):
        try:
            image = cast("Mapping[str, Any]", item)
            folder, name = text_of(image, "url").split("/")[-2:]
            yield (
                image.get("image_id", image.get("id")),
                (f"{folder}/{name}", float(image["width"]), float(image["height"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"an image without url, width and height: {error}", where=f"{file}:{number}"
            ) from None


def _row(
    item: Any,
    images: Mapping[Any, tuple[str, float, float]],
    options: ConverterOptions,
    rejects: Rejects,
    place: tuple[str, int],
) -> Row:
    """An image with its usable regions; each region counts as a row.

    Raises:
        KeyError, TypeError, ValueError: it is none, or its image is not known or missing.
    """
    identifier = item.get("id", item.get("image_id")) if isinstance(item, dict) else None
    if identifier not in images:
        raise ValueError(f"{IMAGES} has no image {identifier}")
    name, width, height = images[identifier]
    path = inside(options.images or Path(), name)
    if options.images is not None and not path.is_file():
        raise ValueError(f"the image {name} is missing")
    regions: list[Row] = []
    for index, region in enumerate(item["regions"], start=1):
        try:
            box = four_numbers([region.get(key) for key in ("x", "y", "width", "height")])
            check_box(scaled_box(box, (width, height)), str(list(box)))
            x, y, wide, high = box
            regions.append(
                {"phrase": text_of(region, "phrase"), "x": x, "y": y, "width": wide, "height": high}
            )
            rejects.accept()
        except (AttributeError, ValueError) as error:
            rejects.add(*place, str(error), index)
    return {
        "id": str(identifier),
        "image": name,
        "image_width": width,
        "image_height": height,
        "regions": regions,
    }
