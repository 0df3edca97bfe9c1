"""Kinds of values: true and false are not numbers, numbers are neither, and one value serves for a list.

pydantic reads text as numbers, as the command line needs, and for the same reason ``true`` as 1 and ``1`` as true.
In a file that has both kinds, such as TOML, one instead of the other is a mistake.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationInfo, field_validator


def inner_type(annotation: Any) -> Any:
    """Strip ``| None`` and ``Annotated`` from a type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(inner) == 1:
            return inner_type(inner[0])
    if typing.get_origin(annotation) is Annotated:
        return inner_type(typing.get_args(annotation)[0])
    return annotation


def value_type(inner: Any) -> Any:
    """The type of one value: of an element where there are several."""
    arguments = typing.get_args(inner)
    if typing.get_origin(inner) is tuple:
        return inner_type(arguments[0])
    if typing.get_origin(inner) is dict:
        return inner_type(arguments[1])
    return inner


class CheckedValues(BaseModel):
    """Base of models whose values users write: checks what pydantic would convert in silence.

    A number is refused where true or false is asked and the reverse, anywhere in the value. A single value serves
    for a list, and a number for the choice that is spelled like it.
    """

    @field_validator("*", mode="before")
    @classmethod
    def _check_kind(cls, value: Any, info: ValidationInfo) -> Any:
        inner = inner_type(cls.model_fields[info.field_name or ""].annotation)
        leaf = value_type(inner)
        wrong = [
            f"{place(path)}should be {_EXPECTED[leaf]}, got {shown(item)}"
            for path, item in _leaves(value)
            if leaf in _EXPECTED and item is not None and isinstance(item, bool) != (leaf is bool)
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        if typing.get_origin(inner) is tuple and isinstance(value, str | int | float):
            return [value]
        if typing.get_origin(inner) is dict and isinstance(value, str):
            return [value]
        if typing.get_origin(leaf) is Literal and isinstance(value, int) and not isinstance(value, bool):
            return str(value) if str(value) in typing.get_args(leaf) else value
        return value


_EXPECTED: dict[Any, str] = {bool: "true or false", int: "a valid integer", float: "a valid number"}


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The single values within lists and tables, each with its keys and indices."""
    if isinstance(value, Mapping):
        for key, item in typing.cast("Mapping[Any, Any]", value).items():
            yield from _leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(typing.cast("Sequence[Any]", value)):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def place(path: Sequence[str | int]) -> str:
    """The place of a value within its option, as a message begins: ``facts: ``, ``value 2: ``, empty for the option."""
    return "".join(f"{part}: " if isinstance(part, str) else f"value {part + 1}: " for part in path)


def shown(value: Any) -> str:
    """A value as a recipe spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    # Dates and times have another spelling in Python.
    return str(value) if isinstance(value, date | time) else repr(value)
