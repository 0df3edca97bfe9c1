"""Safetensors files larger than memory: written from raw files, memory-mapped tensor by tensor."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from priorkit.core.safetensors_header import TensorInfo

_NAMES = {"int64": "I64", "uint32": "U32", "uint16": "U16", "uint8": "U8"}
_DTYPES = {short: np.dtype(name) for name, short in _NAMES.items()}


def write_raw(path: Path, tensors: Mapping[str, tuple[Path, DTypeLike, tuple[int, ...]]]) -> None:
    """Write a safetensors file whose tensors are in raw files; the bytes equal those that safetensors writes.

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


def map_tensor(tensor: TensorInfo) -> NDArray[Any]:
    """Memory-map a tensor of integers, read-only.

    Raises:
        ValueError: its dtype is not one of int64, uint32, uint16 and uint8.
    """
    if tensor.dtype not in _DTYPES:
        raise ValueError(f"tensors of dtype {tensor.dtype} are not expected here")
    dtype = _DTYPES[tensor.dtype]
    if tensor.count == 0:
        return np.zeros(tensor.shape, dtype=dtype)
    return np.memmap(tensor.file, dtype=dtype, mode="r", offset=tensor.offset, shape=tensor.shape)
