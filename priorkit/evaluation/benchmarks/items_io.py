"""Reading the items of a benchmark, or of a file of predictions; unusable rows are counted with a reason."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, nearest
from priorkit.core.process.threads import in_threads
from priorkit.data.conversations.task_conversations import tags_of, task_type_of
from priorkit.data.images.decoding import (
    BrokenImageError,
    ImageRef,
    decode,
    image_key,
    image_reference,
    upright_size,
)
from priorkit.data.io.formats import format_of, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.data.text.documents import read_documents
from priorkit.evaluation.benchmarks.column_mapping import lookup, mapped
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.benchmarks.rows import benchmark_rows
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.cells import Row, check_text, numbers_cell, text_cell
from priorkit.evaluation.tasks.item import Item

logger = logging.getLogger(__name__)

GROUP_COLUMNS = (
    "ability", "prior", "size", "sub_task", "entity", "needs_image", "in_pairs", "in_text", "in_instructions",
    "in_captions", "center_distance", "category", "pair", "image_id", "dataset",
)  # fmt: skip
"""Columns that are kept with every sample, so that results can be grouped and joined."""

FIELDS = (
    "id", "question", "image", "choices", "answer", "answers", "references", "box", "text", "contexts",
)  # fmt: skip
"""Columns that make an item; a preset's others are kept as groups."""

_PLAIN = ("id", "prediction", "prompt", "question", "image", "image_size", "task", "benchmark")


def read_items(
    source: BenchmarkSource,
    rejects: Rejects,
    *,
    group_by: Sequence[str],
    limit: int,
    show_images: bool,
    workers: int = 0,
) -> list[Item]:
    """The usable items of a benchmark, in order.

    Args:
        source: the benchmark.
        rejects: takes rows without question or truth, with an id that was there before, or with an
            image that does not decode.
        group_by: columns kept as groups, in addition to :data:`GROUP_COLUMNS`.
        limit: read no more than so many rows; 0 for all.
        show_images: whether the images will be shown, and so have to decode.
        workers: threads that decode them.

    Raises:
        InputError: too many rows are broken, or none is left.
    """
    preset_columns: list[str] = []
    if source.preset:
        cluster = source.preset.scoring.cluster
        preset_columns = [name for name in source.preset.columns if name not in FIELDS or name == cluster]
    columns = tuple(dict.fromkeys([*GROUP_COLUMNS, *group_by, *preset_columns]))
    read: list[tuple[Path, int, Item | str]] = []
    seen: dict[str, int] = {}
    for index, (file, folder, number, row) in enumerate(_rows(source, rejects)):
        if limit and index >= limit:
            break
        try:
            item = _item(
                source.task, row, index, columns, folder, f"{file.name}:{index}", show_images=show_images
            )
            _refuse_repeat(item, seen, number)
            read.append((file, number, replace(item, file=str(file), row=number)))
        except (ValueError, BrokenImageError) as error:
            read.append((file, number, str(error)))
    broken = _broken_images([item for _, _, item in read if isinstance(item, Item)], workers)
    items: list[Item] = []
    for file, number, item_or_fault in read:
        reason = (
            item_or_fault
            if isinstance(item_or_fault, str)
            else next((broken[k] for k in _keys(item_or_fault) if k in broken), "")
        )
        if isinstance(item_or_fault, str) or reason:
            rejects.add(str(file), number, reason)
            continue
        rejects.accept()
        items.append(item_or_fault)
    rejects.raise_if_over_limit()
    if not items:
        raise InputError("the benchmark holds no usable item", where=str(source.files[0]))
    return items


def read_predictions(
    path: Path,
    task: Task,
    rejects: Rejects,
    group_by: Sequence[str],
    limit: int = 0,
    renamed: Mapping[str, str] | None = None,
) -> list[Item]:
    """The items of a file of predictions: ``id``, ``prediction``, the truth, and groups if any.

    Of more rows than ``limit``, where it is not 0, the first are taken. ``renamed`` are columns that have
    another name, see :func:`priorkit.evaluation.benchmarks.rows.renames`.

    Raises:
        InputError: the file is empty or damaged, too many lines are broken, or none is left.
    """
    if format_of(path) is None:
        raise InputError("expected predictions as JSON Lines", where=str(path))
    columns = tuple(dict.fromkeys([*GROUP_COLUMNS, *group_by]))
    items: list[Item] = []
    seen: dict[str, int] = {}
    unused: dict[str, None] = {}
    for number, row in islice(benchmark_rows(path, rejects, renamed or {}), limit or None):
        try:
            item = predicted(task, row, columns)
            _refuse_repeat(item, seen, number)
        except ValueError as error:
            rejects.add(str(path), number, str(error))
            continue
        rejects.accept()
        items.append(item)
        unused.update(dict.fromkeys(key for key in row if key not in {*task.columns, *columns, *_PLAIN}))
    rejects.raise_if_over_limit()
    if not items:
        raise InputError("the file holds no usable prediction", where=str(path))
    if unused:
        logger.info(f"  not used by the task type '{task.name}': {', '.join(list(unused)[:8])}")
    return items


def _keys(item: Item) -> list[str]:
    return [image_key(image) for image in item.images]


def _broken_images(items: Sequence[Item], workers: int) -> dict[str, str]:
    """Why an image cannot be used, by its key; each is decoded once."""
    refs = {image_key(image): image for item in items for image in item.images}

    def reason(ref: ImageRef) -> str:
        try:
            decode(ref)
        except BrokenImageError as error:
            return str(error)
        return ""

    reasons = zip(refs, in_threads(reason, list(refs.values()), workers), strict=True)
    return {key: why for key, why in reasons if why}


def _rows(source: BenchmarkSource, rejects: Rejects) -> Iterator[tuple[Path, Path, int, Row]]:
    """File, folder of the image files, number and row."""
    images = _image_table(source) if source.images else None
    for file in source.files:
        folder = source.image_folder or file.parent
        if suffix_of(file, (".txt",)):
            for text in read_documents(file, rejects):
                yield file, folder, 1, {"text": text}
            continue
        for number, row in benchmark_rows(file, rejects, source.renamed):
            if source.preset is None:
                yield file, folder, number, row
                continue
            try:
                for mapped_row in mapped(source.preset, row, folder, images):
                    yield file, folder, number, mapped_row
            except (ValueError, BrokenImageError) as error:
                rejects.add(str(file), number, str(error))


def _image_table(source: BenchmarkSource) -> dict[str, Any]:
    """Images by key, still encoded."""
    table = source.preset.data.images if source.preset else None
    if table is None:
        return {}
    rows = (row for file in source.images for _, row in read_rows(file, Rejects(0.0)))
    return {str(lookup(row, table.key)): lookup(row, table.column) for row in rows}


def _item(
    task: Task, row: Row, index: int, columns: Sequence[str], folder: Path, name: str, *, show_images: bool
) -> Item:
    visual = row.get("image") is not None
    if task.needs_image and not visual:
        raise ValueError("'image' is missing")
    images: tuple[ImageRef, ...] = ()
    size = _size(row)
    if visual:
        cells = row["image"] if isinstance(row["image"], list) else [row["image"]]
        try:
            images = tuple(image_reference(cell, folder, name) for cell in cells)
            if task.boxes and images and size is None:
                size = upright_size(images[0])
        except BrokenImageError:
            if show_images:
                raise
    cluster = "+".join(image_key(image) for image in images)
    tags = tags_of(row.get("tags"))
    if not show_images:
        images = ()
        # Tags describe what an image shows, so they are withheld with it.
        tags = None if visual else tags
    return Item(
        id=_identifier(row.get("id"), index),
        question=text_cell(row, "question") if task.needs_question or row.get("question") is not None else "",
        image=images[0] if images else None,
        more_images=images[1:],
        withheld=visual and not show_images,
        cluster=cluster,
        groups=_groups(row, columns),
        tags=tags,
        task_type=task_type_of(row["task_type"]) if row.get("task_type") else "",
        image_size=size,
        **task.read_truth(row),
    )


def predicted(task: Task, row: Row, columns: Sequence[str]) -> Item:
    """One line of a file of predictions.

    Raises:
        ValueError: something is missing or of the wrong form; with the reason.
    """
    for key in ("id", "prediction", *task.columns):
        if row.get(key) is None:
            hint = nearest(key, row, only_close=True)
            state = "null" if key in row else "missing"
            raise ValueError(f"'{key}' is {state}" + (f" ({hint})" if hint else f"; got {', '.join(row)}"))
    question, cluster = row.get("question"), row.get("cluster")
    return Item(
        id=_identifier(row["id"], 0),
        question=question if isinstance(question, str) else "",
        cluster=cluster if isinstance(cluster, str) else "",
        withheld=row.get("withheld") is True,
        prediction=check_text(row["prediction"], "'prediction'"),
        groups=_groups(row, columns),
        image_size=_size(row),
        **task.read_truth(row),
    )


def _size(row: Row) -> tuple[int, int] | None:
    """Width and height in pixels, where a row says so."""
    if row.get("image_size") is None:
        return None
    width, height = numbers_cell(row, "image_size", 2)
    if width < 1 or height < 1:
        raise ValueError(f"'image_size' must be width and height in pixels, got {row['image_size']}")
    return int(width), int(height)


def _identifier(value: Any, index: int) -> str | int:
    if value is None:
        return index
    if isinstance(value, str):
        return check_text(value, "'id'", blank=False)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"'id' must be text or a whole number, got {type(value).__name__}")


def _refuse_repeat(item: Item, seen: dict[str, int], number: int) -> None:
    key = str(item.id)
    if key in seen:
        raise ValueError(f"the id '{key}' was in row {seen[key]} already")
    seen[key] = number


def _groups(row: Row, columns: Sequence[str]) -> dict[str, str]:
    """Values of the group columns as text; truth values as ``true`` and ``false``."""
    values: dict[str, str] = {}
    for column in columns:
        value = row.get(column)
        if isinstance(value, bool):
            values[column] = str(value).lower()
        elif isinstance(value, str | int | float):
            values[column] = str(value)
    nested = row.get("groups")
    if isinstance(nested, dict):
        values.update({key: str(value) for key, value in nested.items() if key in columns})
    return values
