"""iNaturalist's competitions as published (2017 to 2021): ``train.json``, ``val.json``, images below their folder.

A file is one JSON object of arrays, read element by element. The class of each image is held as two integers; the
names of all classes are held.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions, PerEntity, Row, entity_row, inside, text_of
from priorkit.data.io.json_array import array_elements, object_elements
from priorkit.data.io.rejects import Rejects

logger = logging.getLogger(__name__)

CATEGORIES = "categories.json"
"""Classes of the years that publish them apart."""


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a row per image, its entity the common name, or the scientific one where there is none.

    Raises:
        InputError: no file of annotations, or a damaged one.
    """
    files = (
        [source]
        if source.is_file()
        else [file for file in sorted(source.glob("*.json")) if file.name != CATEGORIES]
    )
    chosen = _of_split(files, options.split)
    if not chosen:
        raise InputError("no file of annotations here (train.json, val.json)", where=str(source))
    root = options.images or (source if source.is_dir() else source.parent)
    wanted = PerEntity(options.images_per_entity)
    for file in chosen:
        names = _names(file, options.names)
        images, classes = _classes(file)
        if not len(images):
            if len(chosen) == 1:
                raise InputError("no annotations here; the test images have none", where=str(file))
            logger.info(f"  {file.name} has no annotations and is left out")
            continue
        for number, (_, item) in enumerate(object_elements(file, ("images",)), start=1):
            try:
                image = cast("Mapping[str, Any]", item)
                name = text_of(image, "file_name")
                entity = names[_class_of(image.get("id"), images, classes)]
                if not wanted.takes(file.stem, entity):
                    continue
                row = entity_row(inside(root, name), name, entity)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                reason = f"unknown class {error}" if isinstance(error, KeyError) else str(error)
                rejects.add(str(file), number, reason)
                continue
            rejects.accept()
            yield file.stem, row


def _of_split(files: Sequence[Path], split: str) -> list[Path]:
    """The files of a split: ``train.json``, not also ``train_mini.json``; or else ``train2018.json``."""
    named = [file for file in files if file.stem == split]
    return named or [file for file in files if file.stem.startswith(split)]


def _names(file: Path, wanted: str) -> dict[int, str]:
    """Names by class."""
    found: dict[int, str] = {}
    apart = file.with_name(CATEGORIES)
    listed = (
        array_elements(apart)
        if apart.is_file()
        else (item for _, item in object_elements(file, ("categories",)))
    )
    for item in listed:
        if not isinstance(item, dict) or not isinstance(item.get("id"), int):
            raise InputError("a class without an id", where=str(apart if apart.is_file() else file))
        entry = cast("Mapping[str, Any]", item)
        keys = ("common_name", "name") if wanted == "common" else ("name", "common_name")
        name = next(
            (entry[key].strip() for key in keys if isinstance(entry.get(key), str) and entry[key].strip()), ""
        )
        found[entry["id"]] = name or str(entry["id"])
    if not found:
        raise InputError("no classes here", where=str(file), hint=f"put {CATEGORIES} next to it")
    return _unique(found, file, wanted)


def _unique(names: dict[int, str], file: Path, wanted: str) -> dict[int, str]:
    """The names, of which species with the same common name get their scientific one too."""
    if wanted != "common":
        return names
    scientific = _names(file, "scientific")
    owners: dict[str, int] = {}
    for name in names.values():
        owners[name] = owners.get(name, 0) + 1
    return {
        number: f"{name} ({scientific[number]})" if owners[name] > 1 and scientific[number] != name else name
        for number, name in names.items()
    }


def _classes(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids of images in order, and the class of each: int64 ``[images]`` twice."""
    images, classes = array("q"), array("q")
    for number, (_, item) in enumerate(object_elements(file, ("annotations",)), start=1):
        try:
            entry = cast("Mapping[str, Any]", item)
            images.append(int(entry["image_id"]))
            classes.append(int(entry["category_id"]))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"annotation {number} has no image_id and category_id: {error}", where=str(file)
            ) from None
    order = np.argsort(np.asarray(images, np.int64), kind="stable")
    return np.asarray(images, np.int64)[order], np.asarray(classes, np.int64)[order]


def _class_of(image: Any, images: np.ndarray, classes: np.ndarray) -> int:
    place = int(np.searchsorted(images, image)) if isinstance(image, int) else len(images)
    if place >= len(images) or images[place] != image:
        raise ValueError(f"no annotation of image {image}")
    return int(classes[place])
