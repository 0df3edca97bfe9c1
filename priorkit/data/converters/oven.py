"""OVEN as published: ``oven_entity_SPLIT.jsonl`` with Wikipedia's names, and its images.

A line has ``data_id, image_id, question, entity_id, entity_text, data_split``. The snapshot of the images is
``oven_images/NN/oven_NNNNNNNN.jpg``, by the first two digits of the id; ``ovenid2impath.csv`` says where each image is
in the data sets that it was taken from. Lines are read one by one; the paths of the list are held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from priorkit.core.errors import InputError
from priorkit.data.converters.base import ConverterOptions, PerEntity, Row, entity_row, inside, text_of
from priorkit.data.images.decoding import IMAGE_SUFFIXES
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows

PATHS = "ovenid2impath.csv"
SNAPSHOT = "oven_images"
_SPLIT = re.compile(r"(?:oven_)?(?:entity|query)_([a-z]+)\.jsonl")


def convert(source: Path, options: ConverterOptions, rejects: Rejects) -> Iterator[tuple[str, Row]]:
    """Yield a row per question, its entity the name in Wikipedia; questions without one (of the test split) are rejected.

    Raises:
        InputError: no file of questions, or a damaged one.
    """
    files = [source] if source.is_file() else sorted(source.glob("*entity_*.jsonl"))
    by_split = {found[1] if (found := _SPLIT.fullmatch(file.name)) else file.stem: file for file in files}
    if options.split:
        by_split = {split: file for split, file in by_split.items() if split == options.split}
    if not by_split:
        raise InputError("no file of questions here (oven_entity_*.jsonl)", where=str(source))
    folder = source if source.is_dir() else source.parent
    snapshot = folder / SNAPSHOT
    root = options.images or (snapshot if snapshot.is_dir() else folder)
    paths = dict(_paths(folder / PATHS)) if (folder / PATHS).is_file() else {}
    wanted = PerEntity(options.images_per_entity)
    for split, file in by_split.items():
        for number, item in read_rows(file, rejects):
            try:
                entity, identifier = text_of(item, "entity_text"), text_of(item, "image_id")
                if not wanted.takes(split, entity):
                    continue
                path = _image(root, identifier, paths)
                about = {key: str(item.get(key) or "") for key in ("entity_id", "data_split")}
                row = entity_row(path, path.name, entity, **about)
            except ValueError as error:
                rejects.add(str(file), number, str(error))
                continue
            rejects.accept()
            yield split, row


def _paths(file: Path) -> Iterator[tuple[str, str]]:
    """Path of each image by its id: two columns without a header."""
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            identifier, _, path = line.strip().partition(",")
            if path:
                yield identifier.strip('"'), path.strip('"')


def _image(root: Path, identifier: str, paths: Mapping[str, str]) -> Path:
    """The file of an image: named by its id, in the folder of its first two digits or without; or else as listed."""
    digits = identifier.rpartition("_")[2]
    for folder in (digits[:2], ""):
        for suffix in (*IMAGE_SUFFIXES, ".JPEG"):
            path = inside(root, f"{folder}/{identifier}{suffix}".lstrip("/"))
            if path.is_file():
                return path
    if identifier in paths:
        return inside(root, paths[identifier])
    raise ValueError(f"the image {identifier} is missing")
