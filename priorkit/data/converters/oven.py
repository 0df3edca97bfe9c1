"""OVEN as published: ``oven_entity_SPLIT.jsonl`` with Wikipedia's names, and ``ovenid_impath.csv`` or image files by id.

Lines are read one by one. With ``ovenid_impath.csv``, as the release's scripts make it, the path of each image is held.
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

PATHS = "ovenid_impath.csv"
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
    root = options.images or folder
    paths = dict(_paths(folder / PATHS)) if (folder / PATHS).is_file() else {}
    wanted = PerEntity(options.images_per_entity)
    for split, file in by_split.items():
        for number, item in read_rows(file, rejects):
            try:
                entity, identifier = text_of(item, "entity_text"), text_of(item, "image_id")
                if not wanted.takes(split, entity):
                    continue
                path = _image(root, identifier, paths)
                row = entity_row(path, path.name, entity, entity_id=str(item.get("entity_id") or ""))
            except ValueError as error:
                rejects.add(str(file), number, str(error))
                continue
            rejects.accept()
            yield split, row


def _paths(file: Path) -> Iterator[tuple[str, str]]:
    """Path of each image by its id: two columns, with or without a header."""
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            identifier, _, path = line.strip().partition(",")
            if path:
                yield identifier.strip('"'), path.strip('"')


def _image(root: Path, identifier: str, paths: Mapping[str, str]) -> Path:
    """The file of an image: listed, or named by its id in the folder or in one named by its first digits."""
    if identifier in paths:
        return inside(root, paths[identifier])
    digits = re.sub(r"\D", "", identifier)
    for folder in ("", digits[:2], digits[:3]):
        for suffix in (*IMAGE_SUFFIXES, ".JPEG"):
            path = inside(root, f"{folder}/{identifier}{suffix}".lstrip("/"))
            if path.is_file():
                return path
    raise ValueError(f"the image {identifier} is missing")
