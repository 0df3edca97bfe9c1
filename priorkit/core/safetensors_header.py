"""Headers of safetensors files: names, dtypes, shapes and byte offsets of their tensors, without the values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

MAX_HEADER_BYTES = 100 << 20
"""The safetensors format's own limit."""

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of a value by dtype; dtypes that are not listed are not checked against their shapes."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as a file's header describes it.

    Attributes:
        file: the file.
        dtype: safetensors' name of the dtype, such as ``BF16``.
        shape: the shape.
        offset: the byte of the file where the values begin.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def count(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read the header of a safetensors file.

    Returns:
        The tensors by name, in the header's order.

    Raises:
        InputError: the file is missing, not safetensors or truncated, or its header contradicts its size.
    """
    try:
        return _parsed(path)
    except FileNotFoundError:
        raise InputError(f"{path.name} is missing", where=str(path.parent)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(f"not a complete safetensors file: {error}", where=str(path)) from None


def _parsed(path: Path) -> dict[str, TensorInfo]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 0 < length <= min(MAX_HEADER_BYTES, size - 8):
            raise ValueError("no safetensors header")
        header = cast("dict[str, Any]", parse_json(stream.read(length)))
    header.pop("__metadata__", None)
    tensors: dict[str, TensorInfo] = {}
    last = 0
    for name, entry in header.items():
        try:
            dtype = str(entry["dtype"])
            shape = tuple(int(count) for count in entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"the header's entry of '{name}' is damaged") from None
        info = TensorInfo(path, dtype, shape, 8 + length + begin)
        expected = ITEM_BYTES[dtype] * info.count if dtype in ITEM_BYTES else end - begin
        if end - begin != expected:
            raise ValueError(
                f"'{name}' should have {expected} bytes ({dtype} {list(shape)}), got {end - begin}"
            )
        tensors[name] = info
        last = max(last, end)
    if 8 + length + last != size:
        raise ValueError(f"expected {8 + length + last} bytes, got {size}")
    return tensors
