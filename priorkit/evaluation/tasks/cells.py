"""Checked access to the cells of a benchmark's rows."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

from priorkit.core.json_text import lone_surrogate, parse_json

Row = Mapping[str, Any]


def cell(row: Row, key: str) -> Any:
    """A cell that must be present.

    Raises:
        ValueError: it is missing or null.
    """
    if row.get(key) is None:
        raise ValueError(f"'{key}' is {'null' if key in row else 'missing'}")
    return row[key]


def text_cell(row: Row, key: str, *, blank: bool = True) -> str:
    """A cell that must hold text, or a number, which is written in digits.

    Raises:
        ValueError: missing, of another type, not valid Unicode, or blank where that is not allowed.
    """
    return check_text(_digits(cell(row, key)), f"'{key}'", blank=blank)


def texts_cell(row: Row, key: str) -> tuple[str, ...]:
    """A cell that must hold a non-empty list of texts or numbers; VQA's ``[{"answer": text}]`` is read too.

    Raises:
        ValueError: it holds something else.
    """
    values = list_cell(row, key)
    if not values:
        raise ValueError(f"'{key}' is an empty list")
    plain = [cast(Row, value).get("answer") if isinstance(value, dict) else value for value in values]
    return tuple(check_text(_digits(value), f"'{key}'[{index}]") for index, value in enumerate(plain))


def list_cell(row: Row, key: str) -> list[Any]:
    """A cell that must hold a list, or text that shows one: ``["a", "b"]`` as JSON or as Python writes it.

    Raises:
        ValueError: it holds something else.
    """
    values = cell(row, key)
    parsed = list_of_text(values) if isinstance(values, str) else values
    if not isinstance(parsed, list | tuple):
        raise ValueError(f"'{key}' must be a list of texts, got {_repr(values)}")
    return list(cast("list[Any]", parsed))


def list_of_text(text: str) -> list[Any] | None:
    """The list that a text shows as JSON or as Python writes it; None if it shows none.

    A list that NumPy prints, with blanks between its members, is none: Python would join them to one.
    """
    if not text.lstrip().startswith(("[", "(")):
        return None
    for parse in (parse_json, _python_list):
        try:
            parsed: Any = parse(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(parsed, list | tuple) and lone_surrogate(parsed) is None:
            return list(cast("list[Any]", parsed))
    return None


def _python_list(text: str) -> Any:
    if re.search(r"""['"]\s+['"]""", text):
        raise ValueError("members without commas between them")
    return ast.literal_eval(text)


def numbers_cell(row: Row, key: str, count: int) -> tuple[float, ...]:
    """A cell that must hold a list of exactly ``count`` finite numbers, or text that shows one.

    Raises:
        ValueError: it holds something else.
    """
    values = cell(row, key)
    values = list_of_text(values) if isinstance(values, str) else values
    if not isinstance(values, list | tuple) or len(cast("list[Any]", values)) != count:
        raise ValueError(f"'{key}' must be a list of {count} numbers, got {_repr(row[key])}")
    numbers: list[float] = []
    for value in cast("list[Any]", values):
        if not is_number(value):
            raise ValueError(f"'{key}' must hold finite numbers, got {_repr(value)}")
        numbers.append(float(value))
    return tuple(numbers)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold, and no truth value."""
    largest = sys.float_info.max
    return isinstance(value, int | float) and not isinstance(value, bool) and -largest <= value <= largest


def check_text(value: Any, what: str, *, blank: bool = True) -> str:
    """A value that must be text; see :func:`text_cell`."""
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, got {_repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode: {error.reason}") from None
    if not blank and not value.strip():
        raise ValueError(f"{what} is empty")
    return value


def _digits(value: Any) -> Any:
    return str(value) if is_number(value) else value


def _repr(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"
