"""Safetensors files larger than memory: written from raw files, read at places."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NAMES = {"int64": "I64", "uint32": "U32", "uint16": "U16", "uint8": "U8"}
_DTYPES = {short: np.dtype(name) for name, short in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in a file: its dtype, its shape, the byte where it begins."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


def write_raw(path: Path, tensors: Mapping[str, tuple[Path, DTypeLike, tuple[int, ...]]]) -> None:
    """Write a safetensors file whose tensors lie in raw files; the bytes are those of safetensors itself.

    Args:
        path: the file to write.
        tensors: by name, the raw file, the dtype (int64, uint32, uint16 or uint8) and the shape.
    """
    # safetensors puts the widest types first, then sorts by name.
    order = sorted(tensors, key=lambda name: (-np.dtype(tensors[name][1]).itemsize, name))
    header: dict[str, Any] = {}
    end = 0
    for name in order:
        _, dtype, shape = tensors[name]
        begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {
            "dtype": _NAMES[np.dtype(dtype).name], "shape": list(shape), "data_offsets": [begin, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            with tensors[name][0].open("rb") as raw:
                shutil.copyfileobj(raw, stream, 1 << 20)


def locate(path: Path) -> dict[str, Place]:
    """Where the tensors of a safetensors file stand.

    Raises:
        ValueError: it is no safetensors file of integers, or it is cut short.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(path.stat().st_size, 100 << 20):
            raise ValueError("no safetensors header")
        header = json.loads(stream.read(length))
    places: dict[str, Place] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype = _DTYPES[entry["dtype"]]
            begin, end = entry["data_offsets"]
            shape = tuple(int(size) for size in entry["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the entry of '{name}' in the header is damaged") from error
        if end - begin != math.prod(shape) * dtype.itemsize or 8 + length + end > path.stat().st_size:
            raise ValueError(f"the tensor '{name}' is cut short")
        places[name] = Place(dtype, shape, 8 + length + begin)
    return places


def map_tensor(path: Path, place: Place) -> NDArray[Any]:
    """Memory-map a tensor, read-only."""
    if math.prod(place.shape) == 0:
        return np.zeros(place.shape, dtype=place.dtype)
    return np.memmap(path, dtype=place.dtype, mode="r", offset=place.offset, shape=place.shape)
