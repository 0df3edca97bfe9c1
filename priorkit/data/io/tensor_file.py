"""Safetensors files larger than memory: written from raw files or tensor by tensor, memory-mapped."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from priorkit.core.safetensors_header import ITEM_BYTES, TensorInfo

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


class ShardWriter:
    """Writes one safetensors file whose tensors arrive in any order, at their places.

    The header is known before the first value, so the bytes do not depend on the order of arrival.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        """Write the header and reserve the space.

        Args:
            path: the file to make.
            tensors: name -> (dtype, shape), in their order in the file.

        Raises:
            OSError: the disk is full.
        """
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._begin: dict[str, int] = {}
        position = 0
        for name, (dtype, shape) in tensors.items():
            size = math.prod(shape) * ITEM_BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + size]}
            self._begin[name] = position
            position += size
        text = json.dumps(header, separators=(",", ":")).encode()
        # The format asks for a header padded with spaces, so that tensors are aligned to eight bytes.
        text += b" " * (-len(text) % 8)
        self._data = 8 + len(text)
        self.size = position
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._write(len(text).to_bytes(8, "little") + text, 0)
        os.truncate(self._descriptor, self._data + position)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def write(self, name: str, values: NDArray[Any], start: int = 0) -> None:
        """Write stored values of a tensor from value ``start`` on.

        Raises:
            OSError: the disk is full.
        """
        if values.size:
            content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self._write(content.data, self._data + self._begin[name] + start * values.itemsize)

    def _write(self, content: bytes | memoryview, offset: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._descriptor, content[done:], offset + done)
