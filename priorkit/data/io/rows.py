"""Rows of the files users bring, whatever their format.

A large file can be read in parts by several processes. The parts follow from the file only, so they are the
same on every machine and for any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from priorkit.core.errors import InputError
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import FilePart, NumberedRow, RowFormat


def files_of(path: Path, known: tuple[str, ...] | None = None) -> list[Path]:
    """The files of a source: the file itself, or all files of known types below a folder, sorted.

    Args:
        path: a file or a folder.
        known: suffixes of the types; None for those of all row formats.

    Raises:
        InputError: there is no file of a known type.
    """
    known = row_suffixes() if known is None else known
    if path.is_file():
        if suffix_of(path, known) is None:
            raise _unknown_type(path, known)
        return [path]
    files = sorted(item for item in path.rglob("*") if item.is_file() and suffix_of(item, known))
    if not files:
        raise InputError(f"no file of a known type in this folder ({', '.join(known)})", where=str(path))
    return files


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
