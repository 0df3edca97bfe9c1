"""Thresholds of tags from a file: RAM's list of numbers, or a table of tags and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.data.io.formats import format_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, read_rows

COLUMNS = ("tag", "threshold")


def read_thresholds(path: Path, tags: Sequence[str]) -> list[float]:
    """The threshold of each tag, in the tags' order.

    Args:
        path: a text file with a number per line, as many as there are tags and in their order (RAM's
            ``ram_tag_list_threshold.txt``), or a table with the columns ``tag`` and ``threshold``.
        tags: the vocabulary.

    Raises:
        InputError: not as many numbers as tags, no number, or tags without a threshold.
    """
    if format_of(path) is None:
        return _of_lines(path, tags)
    columns = column_names(path)
    if not set(COLUMNS) <= set(columns):
        raise InputError(
            f"the columns are {', '.join(columns)}; expected {' and '.join(COLUMNS)}", where=str(path)
        )
    found: dict[str, float] = {}
    problems = Problems(InputError)
    rejects = Rejects(0)
    for number, row in read_rows(path, rejects):
        with problems.collecting(f"{path}:{number}"):
            found[str(row.get("tag"))] = _number(row.get("threshold"))
    rejects.raise_if_over_limit()
    missing = [tag for tag in tags if tag not in found]
    if missing:
        hint = nearest(missing[0], found, only_close=True)
        problems.add(
            f"{len(missing)} tags have no threshold, such as '{missing[0]}'", where=str(path), hint=hint
        )
    problems.raise_if_any()
    return [found[tag] for tag in tags]


def _of_lines(path: Path, tags: Sequence[str]) -> list[float]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    problems = Problems(InputError)
    numbers: list[float] = []
    for place, line in enumerate(lines, start=1):
        if line:
            with problems.collecting(f"{path}:{place}"):
                numbers.append(_number(line))
    problems.raise_if_any()
    if len(numbers) != len(tags):
        raise InputError(f"{len(numbers)} thresholds for {len(tags)} tags", where=str(path))
    return numbers


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"no threshold: {str(value)[:40]}")
    return number
