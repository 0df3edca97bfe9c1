"""Finding benchmarks: which files an input holds, their names and task types, only from columns."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from priorkit.core.artifact import hash_file
from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.input_files import paths_below
from priorkit.core.inputs import Input
from priorkit.data.columns import COLUMN_KINDS, RowLayout
from priorkit.data.io.formats import ROW_FORMATS, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, has_schema, read_rows
from priorkit.data.text.documents import text_suffixes
from priorkit.evaluation.benchmarks.rows import COMMON, benchmark_rows, renamed_columns, renames
from priorkit.evaluation.presets.loading import preset, read_preset
from priorkit.evaluation.presets.schema import Preset
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.registry import task_named, task_of

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_SPLITS = ("test", "validation", "val", "dev", "train")


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark that has been found.

    Attributes:
        name: the file's stem, or the artifact's or data set's name.
        files: its files; more than one where it is stored in shards.
        task: its task type.
        visual: whether it has images.
        columns: names of all columns.
        preset: how its columns are read, where it is one.
        images: files of the separate table that holds its images, where there is one.
        image_folder: where the image files named in it are; next to it where None.
        rows: how many rows its files have, before any is read; 0 for plain text.
        renamed: the task type's name of each column that is called otherwise.
    """

    name: str
    files: tuple[Path, ...]
    task: Task
    visual: bool
    columns: tuple[str, ...]
    preset: Preset | None = None
    images: tuple[Path, ...] = ()
    image_folder: Path | None = None
    rows: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])

    def digest(self) -> str:
        """SHA-256 of the file; of all files' digests together where there are several."""
        digests = [hash_file(file).sha256 for file in (*self.files, *self.images)]
        if self.preset is not None:
            digests.append(self.preset.digest())
        return digests[0] if len(digests) == 1 else "+".join(digests)


def find_benchmarks(
    inputs: Mapping[str, Input],
    task: Task | None,
    image_folders: Mapping[str, Path] | None = None,
    layout: RowLayout = COMMON,
) -> list[BenchmarkSource]:
    """All benchmarks that the inputs name, in order.

    A file is one benchmark; so is a benchmark artifact and a hub data set (its split ``test``, else
    ``validation``, else ``train``). Any other folder holds one benchmark per file; of a world its
    folder ``benchmarks``, of labelled text its folder ``text``.

    Args:
        inputs: files, folders, artifacts, hub data sets by label; ``benchmarks.0.NAME`` is the data of the
            preset NAME, whose file is under ``benchmarks.0`` unless it ships with priorkit.
        task: the task type of those that are no presets; from column ``task`` or from the columns where
            None.
        image_folders: where image files that rows name are, by benchmark; of those not named under ``""``.
        layout: the columns of those that are no presets.

    Raises:
        InputError: no table, columns that do not fit, two benchmarks of one name, or a folder for none.
    """
    problems = Problems(InputError)
    folders = image_folders or {}
    benchmarks: list[BenchmarkSource] = []
    for label, item in inputs.items():
        field, index, preset_name = (*label.split(".", 2), "", "")[:3]
        try:
            if preset_name:
                file = inputs.get(f"{field}.{index}")
                found_preset = read_preset(file.path) if file else preset(preset_name)
                benchmarks.append(
                    _preset_source(found_preset, item, folders.get(found_preset.name, folders.get("")))
                )
            elif item.path.suffix != ".toml":
                benchmarks += [
                    _source(name, files, task, folders.get(name, folders.get("")), layout)
                    for name, files in _named_files(item).items()
                ]
        except InputError as error:
            problems.extend(error)
    seen: dict[str, BenchmarkSource] = {}
    for source in benchmarks:
        if source.name in seen:
            problems.add(
                f"two benchmarks are called '{source.name}'",
                where=f"{seen[source.name].files[0]}, {source.files[0]}",
                hint="rename one of them, or evaluate them separately",
            )
        seen[source.name] = source
    for name in folders:
        if name and name not in seen and not len(problems):
            problems.add(f"no benchmark '{name}'", where=f"--images {name}=", hint=nearest(name, seen))
    problems.raise_if_any()
    return benchmarks


def _preset_source(preset: Preset, item: Input, image_folder: Path | None) -> BenchmarkSource:
    """A preset with its files found and its columns checked against the first of them."""
    task = task_named(preset.task, preset.name)
    _check_scoring(preset, task)
    if preset.data.image_folder and image_folder is None:
        raise InputError(
            f"its rows name image files of {preset.data.image_folder}",
            where=preset.name,
            hint=f"say where with --images DIR, or --images {preset.name}=DIR for only this one",
        )
    files = _matching(item, preset.data.patterns)
    tables = _matching(item, preset.data.images.patterns) if preset.data.images else ()
    columns, rows = table_of(files)
    absent = [
        name
        for name in preset.required_columns()
        if name.split(".")[0] not in columns and name not in columns
    ]
    if absent:
        raise InputError(
            f"the benchmark '{preset.name}' reads {', '.join(absent)}; the columns are {', '.join(columns)}",
            where=str(files[0]),
            hint="another release of the data? Adapt a copy of the preset's file",
        )
    given = tuple(preset.columns)
    visual = "image" in given or bool(tables)
    check_columns((*given, *(("image",) if tables else ())), task, preset.name)
    return BenchmarkSource(preset.name, files, task, visual, given, preset, tables, image_folder, rows)


def _check_scoring(preset: Preset, task: Task) -> None:
    """Names in a preset's ``[scoring]`` that mean nothing would leave the number they ask for out."""
    problems = Problems(InputError)
    where = f"{preset.name}, [scoring]"
    if "metric" in preset.scoring.model_fields_set and preset.scoring.metric not in task.known_metrics:
        problems.add(
            f"no metric '{preset.scoring.metric}' of the task type '{task.name}'",
            where=where,
            hint=nearest(preset.scoring.metric, task.known_metrics),
        )
    if preset.scoring.cluster and preset.scoring.cluster not in preset.columns:
        problems.add(
            f"cluster: no column '{preset.scoring.cluster}'",
            where=where,
            hint=nearest(preset.scoring.cluster, preset.columns),
        )
    problems.raise_if_any()


def _matching(item: Input, patterns: Sequence[str]) -> tuple[Path, ...]:
    """A preset's files: the one given, those that its globs find, or all tables of a user's own folder."""
    if item.path.is_file():
        return (item.path,)
    # Files that count as those of an input, such as no hidden ones.
    listed = set(paths_below(item.path))
    files = sorted({file for pattern in patterns for file in item.path.glob(pattern) if file in listed})
    if not files and item.kind != "hub" and not any("/" in pattern for pattern in patterns):
        files = _tables(item.path)
    if not files:
        raise InputError(
            f"no file {' or '.join(patterns)} here",
            where=str(item.path) if item.kind != "hub" else item.given.partition("#")[0],
            hint="offline, only what is in the hub's cache can be used" if item.kind == "hub" else "",
        )
    return tuple(files)


def _named_files(item: Input) -> dict[str, tuple[Path, ...]]:
    path = item.path
    if path.is_file():
        return {stem_of(path): (path,)}
    inner = {"world": "benchmarks", "text": "text"}
    if item.kind in inner:
        path = path / inner[item.kind]
    shards = _by_stem(_tables(path))
    if item.kind == "benchmark":
        return {_base_name(item): next(iter(shards.values()))} if len(shards) == 1 else shards
    if item.kind == "hub":
        split = next((s for s in _SPLITS if s in shards), next(iter(shards)))
        return {_base_name(item): shards[split]}
    return shards


def _base_name(item: Input) -> str:
    return Path(item.given.partition("@")[0].rstrip("/")).name


def _tables(folder: Path) -> list[Path]:
    """The tables of a folder: all of the first type that is there, in it or else below it."""
    below = paths_below(folder)
    for present in ([file for file in below if file.parent == folder], below):
        for suffixes in _searched_suffixes():
            tables = [file for file in present if suffix_of(file, suffixes) and file.name != "rejects.jsonl"]
            if tables:
                return tables
    raise InputError(f"no benchmark here; expected {', '.join(text_suffixes())}", where=str(folder))


def _searched_suffixes() -> list[tuple[str, ...]]:
    """What a folder is searched for in turn; a ``.json`` in it may be anything."""
    tables = [row_format.suffixes for row_format in ROW_FORMATS if not row_format.ambiguous]
    return [*sorted(tables, key=lambda suffixes: ".parquet" not in suffixes), (".txt",)]


def _by_stem(files: Sequence[Path]) -> dict[str, tuple[Path, ...]]:
    grouped: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        stem = stem_of(file)
        shard = _SHARD.fullmatch(stem)
        grouped[shard[1] if shard else stem].append(file)
    return {name: tuple(files) for name, files in grouped.items()}


def stem_of(path: Path) -> str:
    """A file's name without its known suffix, ``.jsonl.gz`` and the like in one."""
    suffix = suffix_of(path, text_suffixes())
    return path.name[: -len(suffix)] if suffix else path.stem


def _source(
    name: str,
    files: tuple[Path, ...],
    task: Task | None,
    image_folder: Path | None,
    layout: RowLayout,
) -> BenchmarkSource:
    first = files[0]
    if suffix_of(first, text_suffixes()) is None:
        raise InputError(f"unknown file type; expected {', '.join(text_suffixes())}", where=str(first))
    if any(file.stat().st_size == 0 for file in files):
        raise InputError("the file is empty", where=str(next(f for f in files if f.stat().st_size == 0)))
    columns, count = (["text"], 0) if suffix_of(first, (".txt",)) else table_of(files)
    if not columns:
        raise InputError("there is no row", where=str(first))
    renamed = renames(columns, layout, str(first))
    columns = renamed_columns(columns, renamed)
    if task is None:
        rows = _cells(files, ["task", "answer"], renamed) if {"task", "answer"} & set(columns) else []
        task = task_of(
            columns,
            (row.get("task") for row in rows),
            (row.get("answer") for row in rows),
            str(first),
        )
    check_columns(columns, task, str(first))
    visual = "image" in columns
    return BenchmarkSource(
        name, files, task, visual, tuple(columns), image_folder=image_folder, renamed=renamed, rows=count
    )


def table_of(files: Sequence[Path]) -> tuple[list[str], int]:
    """Columns and number of rows of a table: of parquet from its footers, of JSON from all rows.

    Rows of JSON need not have the same keys: whether a benchmark has images does not show in its first row.

    Raises:
        InputError: a file is damaged.
    """
    columns: dict[str, None] = {}
    rows = 0
    for file in files:
        if has_schema(file):
            columns.update(dict.fromkeys(column_names(file)))
        if suffix_of(file, (".parquet",)):
            rows += _parquet_rows(file)
            continue
        for _, row in read_rows(file, Rejects(1.0)):
            columns.update(dict.fromkeys(row))
            rows += 1
    return list(columns), rows


def _parquet_rows(file: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def _cells(files: Sequence[Path], columns: list[str], renamed: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Some columns of all rows; rows that do not parse are judged later, when all is read."""
    return [row for file in files for _, row in benchmark_rows(file, Rejects(1.0), renamed, columns)]


def _missing_hint(missing: Sequence[str]) -> str:
    """The options that name the columns that are missing, where there are some."""
    options = [f"--{name}-column" for name in missing if name in COLUMN_KINDS]
    return (f"name the columns with {', '.join(options)}" if options else "rename the columns") + (
        ", or choose another --task"
    )


def check_columns(columns: Sequence[str], task: Task, where: str) -> None:
    """Check that a table has the columns that its task type needs.

    Raises:
        InputError: naming the columns that are missing and those that are there.
    """
    if missing := task.missing_columns(columns):
        raise InputError(
            f"the task type '{task.name}' needs {', '.join(task.required_columns)}; missing: {', '.join(missing)}; "
            f"the columns are {', '.join(columns)}",
            where=where,
            hint=_missing_hint(missing),
        )
