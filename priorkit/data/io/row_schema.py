"""The columns of rows without a schema (JSON): one Arrow type per key, inferred from all rows."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow has no type stubs.

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

Shape = str | dict[str, Any] | list[Any]
"""Of a value: the name of a plain type, ``{key: shape}`` of an object, ``[shape]`` of an array."""

NULL, TEXT = "null", "text"


def shape_of(value: Any) -> Shape:
    """The shape of a JSON value."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(1 << 63) <= value < 1 << 63 else TEXT
    if isinstance(value, float):
        return "float"
    if isinstance(value, list):
        inner: Shape = NULL
        for element in value:
            inner = joined(inner, shape_of(element))
        return [inner]
    if isinstance(value, dict):
        return {name: shape_of(element) for name, element in value.items()}
    return TEXT


def joined(first: Shape, second: Shape) -> Shape:
    """The shape for values of both; text where they have nothing in common."""
    if first == second or second == NULL:
        return first
    if first == NULL:
        return second
    if isinstance(first, dict) and isinstance(second, dict):
        names = dict.fromkeys([*first, *second])
        return {name: joined(first.get(name, NULL), second.get(name, NULL)) for name in names}
    if isinstance(first, list) and isinstance(second, list):
        return [joined(first[0], second[0])]
    return "float" if {str(first), str(second)} == {"int", "float"} else TEXT


def arrow_type(shape: Shape) -> pa.DataType:
    """A shape's Arrow type; values that are always null and empty objects become text."""
    import pyarrow as pa

    if isinstance(shape, list):
        return pa.list_(arrow_type(shape[0]))
    if isinstance(shape, dict) and shape:
        return pa.struct([(name, arrow_type(inner)) for name, inner in shape.items()])
    plain = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    return plain.get(str(shape), pa.string())


def fitted(value: Any, shape: Shape) -> Any:
    """A value converted to its column's type: in a text column, anything but text as JSON.

    Raises:
        ValueError: a text with half a character (a lone surrogate), which cannot be written.
    """
    if value is None:
        return None
    if isinstance(shape, list):
        return [fitted(element, shape[0]) for element in value]
    if isinstance(shape, dict) and shape:
        return {name: fitted(value.get(name), inner) for name, inner in shape.items()}
    if shape == "float":
        return float(value)
    if shape in ("bool", "int"):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds a lone surrogate") from None
    return text


def fitted_row(row: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """A row with all columns, in order; see :func:`fitted`."""
    return {name: fitted(row.get(name), shape) for name, shape in shapes.items()}
