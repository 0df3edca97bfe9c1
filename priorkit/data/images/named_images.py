"""Image files that the rows of an input name: they decide a result as the rows do.

Each function reads an input as the steps do, so that the files found are those that a step reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.errors import PriorkitError, ResourceError
from priorkit.core.input_files import list_files
from priorkit.core.inputs import IMAGES_OF, Input
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import TURN_KEYS, conversation_of
from priorkit.data.conversations.regions import REGION_IMAGES, holds_regions, image_cell
from priorkit.data.images.decoding import BrokenImageError, ImageRef
from priorkit.data.images.entity_sources import EntityLayout, entity_references
from priorkit.data.images.tagged_tables import find_tables, image_cells, rows_of
from priorkit.data.io.file_names import FileNames
from priorkit.data.io.formats import format_of, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import files_of, read_rows
from priorkit.data.pairs.reading import check_pairs, pairs_of

References = Callable[[Path, RowLayout], Iterable[ImageRef]]
"""Yields the images of an input's rows."""


def named_images(
    inputs: Mapping[str, Input],
    names: Sequence[str],
    references: References,
    layout_for: Callable[[str], RowLayout],
) -> dict[str, tuple[Path, FileNames]]:
    """The image files that rows of inputs name and that are not among an input's own files.

    Args:
        inputs: all inputs by label.
        names: the options whose inputs are read.
        references: reads an input.
        layout_for: how the rows of a source are read, by its name.

    Returns:
        ``images of LABEL``, the folder, and the files' names below it, sorted. What is wrong with an input is
        left to ``plan``.

    Raises:
        ResourceError: there is no room for the names.
    """
    files_by_label: dict[str, tuple[Path, FileNames]] = {}
    for label, item in inputs.items():
        option, _, source = label.partition(".")
        if option not in names:
            continue
        try:
            layout = layout_for(source)
            complete = item.revision or (item.owner and item.kind == item.owner.kind)
            if complete and layout.image_folder is None:
                continue
            root = layout.image_folder or (item.path if item.path.is_dir() else item.path.parent)
            own = list_files(root).names if root == item.path else ()
            files = FileNames(_files_below(root, references(item.path, layout), frozenset(own)))
        except ResourceError:
            raise
        except (PriorkitError, OSError):
            continue
        if files:
            files_by_label[IMAGES_OF + label] = (root, files)
    return files_by_label


def _files_below(root: Path, references: Iterable[ImageRef], own: Collection[str]) -> Iterator[str]:
    """Names below a folder of the files that exist and are none of its own."""
    start = os.path.normpath(root.absolute()).rstrip("/") + "/"
    for ref in references:
        if ref.path is None or ref.span is not None:
            continue
        path = os.path.normpath(ref.path.absolute())
        # Most are below it, and relpath is slow.
        name = path.removeprefix(start) if path.startswith(start) else os.path.relpath(path, start)
        if name not in own and ref.path.is_file():
            yield name


def images_of_pairs(path: Path, layout: RowLayout) -> Iterator[ImageRef]:
    """The images of image-text pairs."""
    for file in check_pairs(path, layout):
        if may_name_images(file, layout.image):
            yield from (pair.image for pair in pairs_of(file, Rejects(1.0), layout))


def images_of_conversations(path: Path, layout: RowLayout) -> Iterator[ImageRef]:
    """The images of conversations and of rows of regions."""
    for file in files_of(path):
        if not may_name_images(file, (*layout.image, *REGION_IMAGES, *TURN_KEYS)):
            continue
        for number, row in read_rows(file, Rejects(1.0)):
            try:
                if holds_regions(row):
                    yield layout.image_of(image_cell(row, layout), file, str(number))
                else:
                    yield from conversation_of(row, file, number, layout).images
            except (BrokenImageError, ValueError):
                continue


def images_of_entities(path: Path, layout: EntityLayout) -> Iterator[ImageRef]:
    """The images of entities."""
    if path.is_dir() or may_name_images(path, layout.rows.image):
        yield from (ref for _, ref in entity_references(path, Rejects(1.0), [], layout))


def images_of_tables(path: Path, layout: RowLayout) -> Iterator[ImageRef]:
    """The images of tables with a column of images."""
    for file in find_tables(path, layout):
        if file.is_dir() or not may_name_images(file, layout.image):
            continue
        for rows in rows_of(file, Rejects(1.0), layout):
            for number, row in rows:
                for cell in image_cells(row):
                    try:
                        yield layout.image_of(cell, file, str(number))
                    except BrokenImageError:
                        continue


def may_name_images(file: Path, columns: Collection[str]) -> bool:
    """Whether a table may name image files in some columns; parquet files that embed them are known by their footers."""
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
            if root not in columns or (root in TURN_KEYS and "image" not in inner):
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
