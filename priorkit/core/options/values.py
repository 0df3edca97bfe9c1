"""Types of option values: how what is typed on a command line or in a recipe is read."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from priorkit.core.options.value_kinds import shown

_COUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE]\+?[0-9]{1,2})?)\s*([kKmMbBgGtT]?)\s*")
_COUNT_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}


def parse_count(value: Any) -> Any:
    """Read ``50B``, ``1.5M``, ``2k``, ``1e9`` or a plain number as an integer.

    What is not text passes through.

    Raises:
        ValueError: text that is not an integer of this form.
    """
    if isinstance(value, str):
        text = value.replace("_", "")
        if not (match := _COUNT.fullmatch(text)):
            raise ValueError(f"should be a whole number such as 512, 20k, 1.5M or 2B, got '{value}'")
        count = Decimal(match[1]) * _COUNT_SCALE[match[2].lower()]
        if count != int(count):
            raise ValueError(f"should be a whole number, got '{value}'")
        return int(count)
    return value


def split_commas(value: Any) -> Any:
    """Split ``a,b`` into ``a`` and ``b`` in lists of words and numbers."""
    if isinstance(value, list | tuple):
        items: list[Any] = []
        for item in typing.cast("Sequence[Any]", value):
            if isinstance(item, str):
                items.extend(part.strip() for part in item.split(",") if part.strip())
            else:
                items.append(item)
        return items
    return value


def _named(value: Any) -> Any:
    """Read ``NAME=VALUE`` items into a dict; a dict passes through."""
    if not isinstance(value, list | tuple):
        return value
    named: dict[str, Any] = {}
    for item in typing.cast("Sequence[Any]", value):
        name, sign, content = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not sign or not name.strip() or not content.strip():
            raise ValueError(f"expected NAME=VALUE, got {shown(item)}")
        if name.strip() in named:
            raise ValueError(f"the name '{name.strip()}' is given twice")
        named[name.strip()] = content.strip()
    return named


Count = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]
"""A number of things; ``50B``, ``1.5M``, ``2k`` and ``1e9`` are understood."""

Words = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
"""Words, one per use of the option or separated by commas."""

Numbers = Annotated[tuple[float, ...], BeforeValidator(split_commas)]
"""Numbers, one per use of the option or separated by commas."""

Counts = Annotated[tuple[Count, ...], BeforeValidator(split_commas)]
"""Counts, one per use of the option or separated by commas."""

Named = Annotated[dict[str, str], BeforeValidator(_named)]
"""``NAME=VALUE`` pairs, in the order given."""

NamedNumbers = Annotated[dict[str, float], BeforeValidator(_named), BeforeValidator(split_commas)]
"""``NAME=NUMBER`` pairs, in the order given."""
