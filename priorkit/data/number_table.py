"""Small tables of numbers that users bring: CSV, JSON, parquet. Every cell is checked, and every message has its place."""

from __future__ import annotations

import csv
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.options.value_kinds import shown
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows

CSV_SUFFIXES = (".csv", ".tsv")

_SHOWN_CELLS = 5
"""How many cells of a column are reported one by one."""

_LINES = (*CSV_SUFFIXES, ".jsonl", ".jsonl.gz", ".jsonl.zst")
"""Files whose rows are also lines of an editor."""


@dataclass(frozen=True)
class NumberTable:
    """A table by column.

    Attributes:
        name: of its file, as the user gave it.
        columns: the cells of each column by its name, without blanks around it, in the order of the file.
        lines: for each row its line in the file, 1 being the first; empty where rows are no lines.
    """

    name: str
    columns: dict[str, list[Any]]
    lines: Sequence[int]

    def place(self, row: int, column: str = "") -> str:
        """Where a row is, or a cell: ``mixes.csv, row 2 (line 3), column 'score'``. Rows count from 1, without a header.

        Args:
            row: its index, from 0.
            column: of the cell.
        """
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.name}, row {row + 1}{line}" + (f", column '{column}'" if column else "")

    def numbers(self, column: str, *, missing: bool = False) -> NDArray[np.float64]:
        """A column as numbers, float64 ``[rows]``. Text is read as a number.

        Args:
            column: its name.
            missing: whether empty cells are allowed; they are NaN.

        Raises:
            InputError: no such column, or cells that are empty, true or false, not finite or no number, each with
                its place.
        """
        if column not in self.columns:
            raise InputError(f"no column '{column}'", where=self.name, hint=nearest(column, self.columns))
        problems = Problems(InputError)
        found = np.full(len(self.columns[column]), np.nan)
        wrong = 0
        for row, cell in enumerate(self.columns[column]):
            if missing and is_empty(cell):
                continue
            try:
                found[row] = number_of(cell)
            except ValueError as error:
                wrong += 1
                if wrong <= _SHOWN_CELLS:
                    problems.add(str(error), where=self.place(row, column))
        if wrong == len(found):
            problems.add(f"the column '{column}' holds no numbers", where=self.name)
        elif wrong > _SHOWN_CELLS:
            problems.add(
                f"{wrong} of {len(found)} cells of the column '{column}' are no numbers", where=self.name
            )
        problems.raise_if_any()
        return found


def is_empty(cell: Any) -> bool:
    """Whether a cell holds nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def number_of(cell: Any) -> float:
    """A cell as a finite number.

    Raises:
        ValueError: it holds none.
    """
    if is_empty(cell):
        raise ValueError("the cell is empty; expected a number")
    # What Python reads in addition, such as 1_000, is a slip in a table.
    odd = isinstance(cell, bool | bytes) or (isinstance(cell, str) and "_" in cell)
    try:
        number = math.nan if odd else float(cell)
    except OverflowError:
        raise ValueError(
            f"expected a number below {sys.float_info.max:.1e} in size, got {str(cell)[:12]}..."
        ) from None
    except (TypeError, ValueError):
        odd, number = True, math.nan
    if odd:
        hint = "; decimals are written with a point" if isinstance(cell, str) and _has_comma(cell) else ""
        raise ValueError(f"expected a number, got {shown(cell)}{hint}")
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number, got {shown(cell)}")
    return number


def _has_comma(text: str) -> bool:
    """Whether a text is a number with a decimal comma."""
    try:
        return "." not in text and math.isfinite(float(text.replace(",", ".")))
    except ValueError:
        return False


def read_number_table(path: Path, given: str = "") -> NumberTable:
    """Read a table: ``.csv`` and ``.tsv`` with a header, JSON Lines, a JSON array, parquet.

    Blank lines of a CSV file and those that begin with ``#`` are skipped; cells are apart by commas, semicolons or tabs, whichever
    its header has.

    Args:
        path: the file.
        given: as the user named it, for messages.

    Raises:
        InputError: it cannot be read, has no row, rows that are broken, a column twice, or rows of which some lack a
            column.
    """
    name = given or str(path)
    if not path.is_file():
        raise InputError("expected a file", where=name)
    if suffix_of(path, CSV_SUFFIXES):
        rows = list(_csv_rows(path, name))
    else:
        rows = list(_other_rows(path, name))
    if not rows:
        raise InputError("there is no row", where=name)
    lines = [line for line, _ in rows] if suffix_of(path, _LINES) else []
    names = list(dict.fromkeys(key for _, row in rows for key in row))
    return NumberTable(name, {key: [row.get(key) for _, row in rows] for key in names}, lines)


def _csv_rows(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and cells of each row.

    Raises:
        InputError: not UTF-8, not CSV, or a row has more or fewer cells than the header.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=name) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=name) from None
    # Blank and commented lines are emptied, not removed, so that the reader counts lines as editors do.
    kept = ["" if line.startswith("#") else line for line in lines]
    header_line = next((line for line in kept if line.strip()), "")
    delimiter = max("\t;,", key=header_line.count)
    reader = csv.reader(kept, delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] = []
    problems = Problems(InputError)
    row = 0
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                # Spreadsheets write separators for rows below a table.
                continue
            if not header:
                header = _unique([cell.strip() for cell in cells], name)
                continue
            row += 1
            if len(cells) == len(header):
                yield reader.line_num, {key: cell for key, cell in zip(header, cells, strict=True) if key}
            else:
                problems.add(
                    f"{len(cells)} cells, but the header has {len(header)}",
                    where=f"{name}, row {row} (line {reader.line_num})",
                )
    except csv.Error as error:
        raise InputError(f"not a readable CSV file: {error}", where=f"{name}:{reader.line_num + 1}") from None
    problems.raise_if_any()


def _other_rows(path: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and cells of each row of JSON Lines, a JSON array or parquet.

    Raises:
        InputError: rows are broken, each with its place.
    """
    rejects = Rejects(0.0)
    if suffix_of(path, (".parquet",)):
        import pyarrow.parquet as pq

        _unique(_parquet_columns(pq, path), name)
    for number, row in read_rows(path, rejects):
        keys = _unique([str(key).strip() for key in row], f"{name}, row {number}")
        yield number, dict(zip(keys, row.values(), strict=True))
    problems = Problems(InputError)
    for broken in rejects.rows[:_SHOWN_CELLS]:
        problems.add(str(broken["reason"]), where=f"{name}, row {broken['row']}")
    problems.raise_if_any()


def _parquet_columns(pq: Any, path: Path) -> list[str]:
    import pyarrow as pa

    try:
        return [str(name).strip() for name in pq.read_schema(path).names]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file: {error}", where=str(path)) from None


def _unique(names: Sequence[str], where: str) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise InputError(f"two columns are called '{twice[0]}'", where=where, hint="rename or remove one")
    return list(names)


def check_columns(table: NumberTable, flag: str, names: Iterable[str], problems: Problems) -> None:
    """Add a problem for each name that is no column of the table.

    Args:
        table: the table.
        flag: the option that names them.
        names: the names.
        problems: where the problems go.
    """
    for name in names:
        if name not in table.columns:
            problems.add(
                f"no column '{name}'", where=f"{flag} {table.name}", hint=nearest(name, table.columns)
            )
