"""Which image files the rows of benchmarks name, so that a change of one is a change of the input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from priorkit.core.input_files import paths_below
from priorkit.core.inputs import Input
from priorkit.data.images.decoding import BrokenImageError, path_within
from priorkit.data.images.named_images import may_name_images
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.column_mapping import image_value
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.benchmarks.rows import benchmark_rows


def image_files(
    sources: Sequence[BenchmarkSource], inputs: Sequence[Input]
) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Image files by benchmark: their folder, and their names below it, sorted.

    Files that are among those of an input are left out.

    Args:
        sources: the benchmarks.
        inputs: what they were found in.
    """
    folders = [item for item in inputs if item.path.is_dir()]
    complete = [item.path.resolve() for item in folders if item.owner is not None]
    listed = {path for item in folders if item.owner is None for path in paths_below(item.path.resolve())}
    by_benchmark: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for source in sources:
        for folder in dict.fromkeys(source.image_folder or file.parent for file in source.files):
            if any(folder.resolve().is_relative_to(parent) for parent in complete):
                continue
            files = [file for file in source.files if folder in (source.image_folder, file.parent)]
            named = {name for file in files for name in _names(source, file)}
            root = folder.resolve()
            names = {name for name in named if _is_there(folder, name) and root / name not in listed}
            if names:
                by_benchmark[source.name] = (folder, tuple(sorted(names)))
    return by_benchmark


def _names(source: BenchmarkSource, file: Path) -> Iterator[str]:
    if not source.visual or not _may_name(source, file):
        return
    for _, row in benchmark_rows(file, Rejects(1.0), source.renamed):
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
    column = next((old for old, new in source.renamed.items() if new == "image"), "image")
    return may_name_images(file, (column,))


def _is_there(folder: Path, name: str) -> bool:
    try:
        return path_within(folder, name).is_file()
    except (BrokenImageError, OSError, ValueError):
        return False
