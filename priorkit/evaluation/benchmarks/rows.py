"""Rows of benchmarks and predictions under the names of columns that task types read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems
from priorkit.data.columns import COLUMN_KINDS, RowLayout, column_hint
from priorkit.data.io.formats import format_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import NumberedRow
from priorkit.data.io.rows import read_rows
from priorkit.evaluation.tasks.cells import list_of_text

COMMON = RowLayout(image=("image", "img"), text=("text",), question=("question",), answer=("answer",))
"""Names of columns that benchmarks commonly have."""


def renames(columns: Sequence[str], layout: RowLayout, where: str) -> dict[str, str]:
    """The columns that have another name than task types give them.

    Args:
        columns: of the table.
        layout: the names that are looked for.
        where: the table, for errors.

    Returns:
        The task types' name by that of the table.

    Raises:
        InputError: a column that the user names is not there.
    """
    problems = Problems(InputError)
    found: dict[str, str] = {}
    for kind in COLUMN_KINDS:
        wanted = getattr(layout, kind)
        name = next((name for name in wanted if name in columns), None)
        if name is None and wanted != getattr(COMMON, kind):
            problems.add(
                f"no column of the {kind} ({' or '.join(wanted)}); the columns are {', '.join(columns)}",
                where=where,
                hint=column_hint(kind, wanted, columns),
            )
        elif name is not None and name != kind and kind != "label":
            found[name] = kind
    problems.raise_if_any()
    return found


def renamed_columns(columns: Iterable[str], renamed: Mapping[str, str]) -> list[str]:
    """Columns after renaming; one that had another's new name is gone."""
    taken = set(renamed.values())
    return [renamed.get(name, name) for name in columns if name in renamed or name not in taken]


def benchmark_rows(
    file: Path, rejects: Rejects, renamed: Mapping[str, str], columns: list[str] | None = None
) -> Iterator[NumberedRow]:
    """The rows of a table.

    An empty cell of a CSV or TSV is a missing one, and a whole number in its column ``answer`` is a number.

    Args:
        file: the table.
        rejects: takes rows that do not parse.
        renamed: from :func:`renames`.
        columns: those that are needed, by the task types' names; all where None.

    Raises:
        InputError: the file is damaged.
    """
    row_format = format_of(file)
    as_text = row_format is not None and row_format.secondary
    origin = {new: old for old, new in renamed.items()}
    needed = None if columns is None else [origin.get(name, name) for name in columns]
    for number, row in read_rows(file, rejects, needed):
        if renamed:
            row = {new: row[origin.get(new, new)] for new in renamed_columns(row, renamed)}
        yield number, _typed(row) if as_text else row


def _typed(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of text with its empty cells as None and the index of an answer as a number."""
    found: dict[str, Any] = {name: cell if cell != "" else None for name, cell in row.items()}
    answer, choices = found.get("answer"), found.get("choices")
    if isinstance(answer, str) and answer.isdecimal() and str(int(answer)) == answer:
        listed = map(str, list_of_text(choices) or []) if isinstance(choices, str) else ()
        found["answer"] = answer if answer in listed else int(answer)
    return found
