"""Rows of the files users bring, whatever their format.

A large file can be read in parts by several processes. The parts follow from the file only, so they are the
same on every machine and for any number of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from priorkit.core.errors import InputError, Problems
from priorkit.core.input_files import MANIFEST, list_files
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.rejects import REJECTS, Rejects
from priorkit.data.io.row_format import FilePart, NumberedRow, RowFormat

logger = logging.getLogger(__name__)

UNREADABLE_SUFFIXES = (
    *(".avro", ".orc", ".xlsx", ".xls", ".h5", ".hdf5", ".pkl"),
    *(".tar", ".tgz", ".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst", ".lz4"),
)
"""Data formats that users have and no step reads; such files are named, not skipped in silence."""


def files_of(path: Path, known: tuple[str, ...] | None = None) -> list[Path]:
    """The files of a source: the file itself, or all files of known types below a folder, sorted.

    See :mod:`priorkit.core.input_files` for what a folder's files are. A ``.json`` that holds one object, such
    as ``dataset_infos.json``, is left out of a folder that holds rows too, and so are CSV and TSV files next to
    rows in other formats.

    Args:
        path: a file or a folder.
        known: suffixes of the types; None for those of all row formats.

    Raises:
        InputError: there is no file of a known type, or a link to one leads nowhere.
    """
    known = row_suffixes() if known is None else known
    if path.is_file():
        if suffix_of(path, known) is None:
            raise _unknown_type(path, known)
        return [path]
    listed = list_files(path)
    problems = Problems(InputError)
    for name in listed.dangling:
        if suffix_of(path / name, known):
            problems.add(
                "the link leads nowhere", where=str(path / name), hint="fetch its file, or remove it"
            )
    problems.raise_if_any()
    # Of an artifact the manifest and the list of rejected rows are no data.
    own = (MANIFEST, REJECTS) if MANIFEST in listed.names else ()
    files = sorted(path / name for name in listed.names if name not in own and suffix_of(path / name, known))
    single = [file for file in files if _is_single_object(file)]
    files = [file for file in files if file not in single] or single
    lists = _secondary(files)
    files = [file for file in files if file not in lists]
    unread = {
        "files in formats that are not read here": [
            name
            for name in listed.names
            if not suffix_of(path / name, known) and name.lower().endswith(UNREADABLE_SUFFIXES)
        ],
        "JSON files without rows": [
            file.relative_to(path).as_posix() for file in single if file not in files
        ],
        "tables next to rows in other formats": [file.relative_to(path).as_posix() for file in lists],
        "artifacts of priorkit, which are inputs themselves": list(listed.artifacts),
    }
    notes = [f"{len(names)} {what}, such as {names[0]}" for what, names in unread.items() if names]
    if not files:
        raise InputError(
            f"no file of a known type in this folder ({', '.join(known)})",
            where=str(path),
            hint="there are " + "; ".join(notes) if notes else "",
        )
    if notes:
        _warn_once(f"{path}: left out are " + "; ".join(notes))
    return files


@cache
def _warn_once(text: str) -> None:
    """Warn of what several readers of the same source find."""
    logger.warning(text)


def _secondary(files: Sequence[Path]) -> list[Path]:
    """Files of secondary formats next to those of others."""
    formats = {file: found for file in files if (found := format_of(file))}
    second = [file for file, found in formats.items() if found.secondary]
    return second if len(second) < len(formats) else []


def _is_single_object(file: Path) -> bool:
    """Whether a file of an ambiguous format holds one JSON object instead of rows: a description or settings."""
    row_format = format_of(file)
    return row_format is not None and row_format.ambiguous and not row_format.may_hold_rows(file)


def read_rows(path: Path, rejects: Rejects, columns: list[str] | None = None) -> Iterator[NumberedRow]:
    """Yield ``(row number from 1, row)`` of a file.

    Args:
        path: a file of a known format.
        rejects: takes the rows that do not parse.
        columns: parquet columns to read; all where None.

    Raises:
        InputError: the file is empty, truncated or not of its type.
    """
    yield from _readable(path).read(path, rejects, columns)


def column_names(path: Path) -> list[str]:
    """The columns of a file: from its schema, or the keys of its first row.

    Raises:
        InputError: as :func:`read_rows`.
    """
    return _readable(path).column_names(path)


def has_schema(path: Path) -> bool:
    """Whether all rows of a file have the columns that :func:`column_names` gives."""
    return (row_format := format_of(path)) is not None and row_format.has_schema


def has_column(path: Path, *names: str) -> bool:
    """Whether a file has one of several columns; of JSON, whether any row has, read up to the first that does.

    Raises:
        InputError: as :func:`read_rows`.
    """
    if has_schema(path):
        return not set(names).isdisjoint(column_names(path))
    return any(not row.keys().isdisjoint(names) for _, row in read_rows(path, Rejects(1.0)))


def parts_of(path: Path) -> list[FilePart]:
    """The parts that a file is read in; a file of another type than rows is one part."""
    row_format = format_of(path)
    count = row_format.part_count(path) if row_format else 1
    return [FilePart(path, index, count) for index in range(count)]


class PartReader:
    """Reads the rows of a part of a file.

    Args:
        part: which part.
        rejects: takes the rows that do not parse.
        columns: parquet columns to read; all where None.

    Attributes:
        lines: the number of lines read so far, where row numbers count from the start of the part (plain
            JSON Lines); 0 where they count from the start of the file.
    """

    def __init__(self, part: FilePart, rejects: Rejects, columns: list[str] | None = None) -> None:
        self._part, self._rejects, self._columns = part, rejects, columns
        self.lines = 0

    def __iter__(self) -> Iterator[NumberedRow]:
        row_format = _readable(self._part.path)
        return row_format.read_part(self._part, self._rejects, self._columns, self._count_line)

    def _count_line(self) -> None:
        self.lines += 1


def _readable(path: Path) -> RowFormat:
    """The format of a file that is not empty."""
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path))
    row_format = format_of(path)
    if row_format is None:
        raise _unknown_type(path, row_suffixes())
    return row_format


def _unknown_type(path: Path, known: tuple[str, ...]) -> InputError:
    return InputError(f"unknown file type; expected {', '.join(known)}", where=str(path))
