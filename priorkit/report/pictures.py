"""Pictures for the page: small, self-contained, only where the images are still at hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError
from priorkit.data.images.decoding import BrokenImageError, ImageRef, decode, image_reference, path_within
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, files_of, read_rows
from priorkit.data.io.tables import read_table
from priorkit.data.results.artifact_graph import sources

LONGEST_SIDE = 192
"""Pictures are scaled down to this many pixels on their longer side."""

PER_ENTITY = 3

_MODELS = ("llm", "mllm", "encoder", "adapter", "tokenizer")


def data_uri(ref: ImageRef) -> str:
    """An image as a data URI; empty where it cannot be decoded."""
    try:
        image = decode(ref)
    except BrokenImageError:
        return ""
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def entity_pictures(ranks: Artifact, entities: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The first images of entities, as rank-e saw them; nothing where its image folder is gone."""
    folder = next((source.path for record, source in sources(ranks) if record.setting == "images"), None)
    if folder is None or not folder.is_dir():
        return {}
    table = read_table(ranks.path / "images.parquet")
    names: dict[str, list[str]] = {entity: [] for entity in entities}
    for path, entity in zip(table["path"], table["entity"], strict=True):
        if entity in names and len(names[entity]) < PER_ENTITY:
            names[entity].append(str(path))
    return {
        entity: tuple(uri for path in paths if (uri := _file_uri(folder, path)))
        for entity, paths in names.items()
    }


def _file_uri(folder: Path, name: str) -> str:
    try:
        path = path_within(folder, name)
    except BrokenImageError:
        return ""
    return data_uri(ImageRef(name, path)) if path.is_file() else ""


def item_pictures(
    evaluations: Sequence[Artifact], wanted: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], str]:
    """The images of benchmark items, from the benchmarks that the evaluations read.

    Args:
        evaluations: the evaluations.
        wanted: benchmark -> ids.

    Returns:
        (benchmark, id) -> data URI, for those that could be found.
    """
    ids = {key for keys in wanted.values() for key in keys}
    pictures: dict[tuple[str, str], str] = {}
    read: set[Path] = set()
    for evaluation in evaluations:
        for _, item in sources(evaluation):
            for file in [] if item.kind in _MODELS else _tables(item.path):
                if file.resolve() not in read:
                    read.add(file.resolve())
                    for key, ref in _images(file, ids):
                        for name in wanted:
                            if (
                                key in wanted[name]
                                and (name, key) not in pictures
                                and _belongs(file, name, wanted)
                            ):
                                pictures[name, key] = data_uri(ref)
    return pictures


def _belongs(file: Path, benchmark: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether a file may hold a benchmark's items: by its own or its folder's name, if any goes by one."""
    names = {file.stem, file.parent.name}
    return benchmark in names or not any(name in names for name in wanted)


def _tables(path: Path) -> list[Path]:
    """The files below a path that hold items with images."""
    try:
        return [file for file in files_of(path) if _has_items(file)]
    except InputError:
        return []


def _has_items(file: Path) -> bool:
    try:
        return {"id", "image"} <= set(column_names(file))
    except InputError:
        return False


def _images(file: Path, ids: set[str]) -> list[tuple[str, ImageRef]]:
    """Items of a benchmark's file with their images."""
    columns = ["id", "image"] if suffix_of(file, (".parquet",)) else None
    images: list[tuple[str, ImageRef]] = []
    for _, row in read_rows(file, Rejects(1.0), columns):
        key = str(row.get("id"))
        if key not in ids:
            continue
        try:
            images.append((key, image_reference(row.get("image"), file.parent, key)))
        except BrokenImageError:
            continue
    return images
