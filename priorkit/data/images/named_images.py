"""Image files that the rows of an input name: they decide a result as the rows do.

Each function reads an input as the steps do, so that the files found are those that a step reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from priorkit.core.errors import PriorkitError
from priorkit.core.input_files import list_files
from priorkit.core.inputs import IMAGES_OF, Input
from priorkit.data.conversations.conversation import conversation_of, has_turns
from priorkit.data.conversations.regions import image_cell
from priorkit.data.images.decoding import BrokenImageError, ImageRef, image_reference
from priorkit.data.images.entities import entity_references
from priorkit.data.images.pairs import check_pairs, pairs_of
from priorkit.data.images.tagged_tables import find_tables, image_cells
from priorkit.data.io.formats import format_of, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import files_of, read_rows

References = Callable[[Path], Iterable[ImageRef]]
"""Yields the images of an input's rows."""


def named_images(
    inputs: Mapping[str, Input], names: Sequence[str], references: References
) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """The image files that rows of inputs name and that are not among an input's own files.

    Args:
        inputs: all inputs by label.
        names: the options whose inputs are read.
        references: reads an input.

    Returns:
        ``images of LABEL``, the folder, and the files' names below it, sorted. What is wrong with an input is
        left to ``plan``.
    """
    files_by_label: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for label, item in inputs.items():
        complete = item.revision or (item.owner and item.kind == item.owner.kind)
        if complete or label.split(".")[0] not in names:
            continue
        root = item.path if item.path.is_dir() else item.path.parent
        try:
            files = {
                PurePath(os.path.relpath(ref.path, root)).as_posix()
                for ref in references(item.path)
                if ref.path is not None and ref.span is None
            }
            if item.path.is_dir():
                files.difference_update(list_files(root).names)
        except (PriorkitError, OSError):
            continue
        if files := {name for name in files if (root / name).is_file()}:
            files_by_label[IMAGES_OF + label] = (root, tuple(sorted(files)))
    return files_by_label


def images_of_pairs(path: Path) -> Iterator[ImageRef]:
    """The images of image-text pairs."""
    for file in check_pairs(path):
        if may_name_images(file):
            yield from (pair.image for pair in pairs_of(file, Rejects(1.0)))


def images_of_conversations(path: Path) -> Iterator[ImageRef]:
    """The images of conversations and of rows of regions."""
    for file in files_of(path):
        if not may_name_images(file):
            continue
        for number, row in read_rows(file, Rejects(1.0)):
            try:
                if has_turns(name for name, value in row.items() if value is not None):
                    yield from conversation_of(row, file, number).images
                else:
                    yield image_reference(image_cell(row), file.parent, str(number))
            except (BrokenImageError, ValueError):
                continue


def images_of_entities(path: Path) -> Iterator[ImageRef]:
    """The images of entities."""
    if path.is_dir() or may_name_images(path):
        yield from (ref for _, ref in entity_references(path, Rejects(1.0), []))


def images_of_tables(path: Path) -> Iterator[ImageRef]:
    """The images of tables with a column ``image``."""
    for file in find_tables(path):
        if file.is_dir() or not may_name_images(file):
            continue
        for number, row in read_rows(file, Rejects(1.0)):
            for cell in image_cells(row):
                try:
                    yield image_reference(cell, file.parent, str(number))
                except BrokenImageError:
                    continue


_COLUMNS = frozenset(
    {"image", "images", "file_name", "image_path", "jpg", "png", "conversations", "messages"}
)


def may_name_images(file: Path) -> bool:
    """Whether a table may name image files; parquet files that embed their images are known by their footers."""
    if format_of(file) is None:
        return False
    if suffix_of(file, (".parquet",)) is None:
        return True
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata: Any = pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        return False
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            root, *inner = column.path_in_schema.split(".")
            if root not in _COLUMNS or (root in ("conversations", "messages") and "image" not in inner):
                continue
            is_text = metadata.schema.column(index).logical_type.type == "STRING"
            if inner[-1:] == ["bytes"]:
                # Where an image is not embedded its path counts.
                statistics = column.statistics
                if statistics is None or not statistics.has_null_count or statistics.null_count:
                    return True
            elif is_text and inner[-1:] != ["path"]:
                return True
    return False
