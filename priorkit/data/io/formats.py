"""The file formats of rows that every step reads: the one place where a format is listed.

A new format is a module with a :class:`~priorkit.data.io.row_format.RowFormat` and a line here.
"""

from __future__ import annotations

from pathlib import Path

from priorkit.data.io.arrow import ArrowTable
from priorkit.data.io.delimited import Delimited
from priorkit.data.io.json_array import JsonArray
from priorkit.data.io.json_lines import JsonLines
from priorkit.data.io.parquet import Parquet
from priorkit.data.io.row_format import RowFormat

ROW_FORMATS: list[RowFormat] = [
    JsonLines(),
    JsonArray(),
    Parquet(),
    ArrowTable(),
    Delimited(),
]


def register_row_format(row_format: RowFormat) -> None:
    """Add a format for this process; worker processes know only those that are listed here.

    Raises:
        ValueError: one of its suffixes belongs to another format.
    """
    taken = set(row_format.suffixes) & set(row_suffixes())
    if taken:
        raise ValueError(f"there is a format for {', '.join(sorted(taken))} already")
    ROW_FORMATS.append(row_format)


def row_suffixes() -> tuple[str, ...]:
    """The suffixes of all formats."""
    return tuple(suffix for row_format in ROW_FORMATS for suffix in row_format.suffixes)


def format_of(path: Path) -> RowFormat | None:
    """The format of a file by its suffix, None where it is none of these."""
    suffix = suffix_of(path, row_suffixes())
    return next((known for known in ROW_FORMATS if suffix in known.suffixes), None)


def suffix_of(path: Path, known: tuple[str, ...]) -> str | None:
    """The longest known suffix that a file's name ends with."""
    matching = [suffix for suffix in known if path.name.lower().endswith(suffix)]
    return max(matching, key=len) if matching else None
