"""Which image files the rows of benchmarks name, so that a change of one is a change of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.inputs import Input
from priorkit.data.images.decoding import BrokenImageError, path_within
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.evaluation.benchmarks.column_mapping import image_value
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource


def image_files(
    sources: Sequence[BenchmarkSource], inputs: Sequence[Input]
) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Image files by benchmark: their folder, and their names below it, sorted.

    Files below an input that is a folder are left out: they are a part of it.

    Args:
        sources: the benchmarks.
        inputs: what they were found in.
    """
    full_folders = [item.path.resolve() for item in inputs if item.path.is_dir() and not item.revision]
    by_benchmark: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for source in sources:
        for folder in dict.fromkeys(source.image_folder or file.parent for file in source.files):
            if any(folder.resolve().is_relative_to(parent) for parent in full_folders):
                continue
            files = [file for file in source.files if folder in (source.image_folder, file.parent)]
            names = {name for file in files for name in _names(source, file) if _is_there(folder, name)}
            if names:
                by_benchmark[source.name] = (folder, tuple(sorted(names)))
    return by_benchmark


def _names(source: BenchmarkSource, file: Path) -> Iterator[str]:
    if not source.visual or not _may_name(source, file):
        return
    for _, row in read_rows(file, Rejects(1.0)):
        try:
            value = image_value(source.preset, row) if source.preset else row.get("image")
        except ValueError:
            continue
        for cell in value if isinstance(value, list) else [value]:
            path = cell.get("path") if isinstance(cell, dict) and not cell.get("bytes") else cell
            if isinstance(path, str) and path:
                yield path


def _may_name(source: BenchmarkSource, file: Path) -> bool:
    """Whether images may be files next to a table: in parquet they are named where the column holds text."""
    if suffix_of(file, (".txt",)):
        return False
    if suffix_of(file, (".parquet",)) is None:
        return True
    if source.preset is not None:
        return bool(source.preset.data.image_folder)
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema: Any = pq.read_schema(file)
    kind = schema.field("image").type if "image" in schema.names else pa.null()
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_there(folder: Path, name: str) -> bool:
    try:
        return path_within(folder, name).is_file()
    except (BrokenImageError, OSError, ValueError):
        return False
