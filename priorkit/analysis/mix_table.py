"""Tables of mixes and scores: CSV, in addition to parquet and JSON Lines."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.io.formats import suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows


def read_mix_table(path: Path) -> dict[str, list[Any]]:
    """Read a small table by column; lines of a CSV that begin with ``#`` are comments.

    Raises:
        InputError: it cannot be read, is empty, or a row lacks a column.
    """
    if not path.is_file():
        raise InputError("expected a file", where=str(path))
    if suffix_of(path, (".csv",)):
        rows = _csv_rows(path)
    else:
        rejects = Rejects(0.0)
        rows = [row for _, row in read_rows(path, rejects)]
        rejects.raise_if_over_limit()
    if not rows:
        raise InputError("there is no row", where=str(path))
    for number, row in enumerate(rows, start=1):
        missing = [name for name in rows[0] if row.get(name) is None]
        if missing:
            raise InputError(f"row {number} has no '{missing[0]}'", where=str(path))
    return {name: [row[name] for row in rows] for name in rows[0]}


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        data_lines = [line for line in lines if line.strip() and not line.startswith("#")]
        return [
            {str(k).strip(): v for k, v in row.items()} for row in csv.DictReader(data_lines, strict=True)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a readable CSV file: {error}", where=str(path)) from None
