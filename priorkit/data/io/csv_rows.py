"""Rows of CSV files: the tables that ``datasets`` describes images with."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.io.row_format import NumberedRow


def read_csv(path: Path) -> Iterator[NumberedRow]:
    """Yield the rows of a CSV file with a header, their values as text, numbered by line.

    Raises:
        InputError: it is not UTF-8 text, or not CSV.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        try:
            for row in reader:
                values: dict[str, Any] = {name: value for name, value in row.items() if name is not None}
                yield reader.line_num, values
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(
                f"not a readable CSV file: {error}", where=f"{path}:{reader.line_num + 1}"
            ) from None
