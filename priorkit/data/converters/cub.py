"""CUB-200-2011 as published: numbered lists of images, classes and labels, and ``images/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions, PerEntity, Row, entity_row, inside
from priorkit.data.io.rejects import Rejects


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a row per image; ``001.Black_footed_Albatross`` is called ``Black footed Albatross``.

    Raises:
        InputError: a list is missing or damaged.
    """
    file = source / "images.txt"
    classes = {number: _name(text) for number, text in _lines(source / "classes.txt")}
    labels = dict(_lines(source / "image_class_labels.txt"))
    splits = dict(_lines(source / "train_test_split.txt"))
    root = options.images or source / "images"
    wanted = PerEntity(options.images_per_entity)
    for line, (number, name) in enumerate(_lines(file), start=1):
        split = {"1": "train", "0": "test"}.get(splits.get(number, ""), "")
        if options.split and split != options.split:
            continue
        try:
            if not split:
                raise ValueError(f"image {number} is in no split")
            if labels.get(number) not in classes:
                raise ValueError(f"image {number} has the unknown class {labels.get(number)}")
            entity = classes[labels[number]]
            if not wanted.takes(split, entity):
                continue
            row = entity_row(inside(root, name), name, entity)
        except ValueError as error:
            rejects.add(str(file), line, str(error))
            continue
        rejects.accept()
        yield split, row


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """Number and text of each line."""
    try:
        with file.open(encoding="utf-8") as stream:
            for place, line in enumerate(stream, start=1):
                number, _, text = line.strip().partition(" ")
                if line.strip():
                    if not number.isdigit() or not text:
                        raise InputError(
                            f"expected a number and a text, got '{line.strip()}'", where=f"{file}:{place}"
                        )
                    yield number, text
    except FileNotFoundError:
        raise InputError(f"{file.name} is missing", where=str(file.parent)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason}", where=str(file)) from None


def _name(text: str) -> str:
    return re.sub(r"^\d+\.", "", text).replace("_", " ").strip()
