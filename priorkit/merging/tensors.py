"""Tensors on disk as numpy arrays: positioned reads, widening to fp32 or fp64, one cast back.

numpy has no bfloat16, so bf16 travels as ``uint16`` bits: widening appends sixteen zero bits, narrowing
rounds to the nearest even as IEEE 754 asks, so the bytes equal those of a cast in torch. Nothing is
memory-mapped: resident memory holds what is being worked on and no file pages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.safetensors_header import TensorInfo
from priorkit.data.io.tensor_file import ShardWriter

FLOATS: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
"""Floating-point types by their safetensors name, as they are held in memory."""

BUFFERS: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "BOOL": np.dtype("?"),
}
"""Types of buffers, which are copied and never merged."""

CHUNK = 1 << 16
"""Values handled in one pass of elementwise arithmetic: temporaries stay in the processor's cache."""


def compute_dtype(precision: str) -> type[np.floating[Any]]:
    """The dtype of ``--precision``: float64 for ``fp64``, else float32."""
    return np.float64 if precision == "fp64" else np.float32


def item_size(dtype: str) -> int:
    """Bytes of one value.

    Raises:
        InputError: a packed or unknown type, as quantised weights have.
    """
    known = FLOATS.get(dtype) or BUFFERS.get(dtype)
    if known is None:
        raise InputError(f"tensors of type {dtype} cannot be merged", hint="dequantise the model first")
    return known.itemsize


def chunks(count: int, step: int = CHUNK) -> Iterable[slice]:
    """Slices that cover ``count`` values in order."""
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


class TensorReader:
    """Reads tensors, or ranges of them, by position; safe to share between threads."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(self, *exception: object) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def open(self, files: Iterable[Path]) -> None:
        """Open files before threads read from them."""
        for file in files:
            if file not in self._open:
                self._open[file] = os.open(file, os.O_RDONLY)

    def raw(self, info: TensorInfo, start: int = 0, count: int | None = None) -> NDArray[Any]:
        """Values ``start`` to ``start + count`` as stored, flat; bf16 as ``uint16`` bits.

        Raises:
            InputError: the file ends early.
        """
        dtype = FLOATS.get(info.dtype) or BUFFERS[info.dtype]
        values = np.empty(info.count if count is None else count, dtype)
        self._fill(values, info, start)
        return values

    def _fill(self, values: NDArray[Any], info: TensorInfo, start: int) -> None:
        """Read values from ``start`` on into an array of the stored type."""
        view = values.view(np.uint8)
        offset, done = info.offset + start * values.itemsize, 0
        while done < view.size:
            got = os.preadv(self._open[info.file], [view[done:].data], offset + done)
            if got == 0:
                raise InputError("the file ends within a tensor", where=str(info.file))
            done += got

    def values(
        self, info: TensorInfo, precision: type[np.floating[Any]], start: int = 0, count: int | None = None
    ) -> NDArray[Any]:
        """The same values as floats of the given precision, flat.

        Raises:
            InputError: the file ends early, or a value is NaN or infinite.
        """
        widened = np.empty(info.count if count is None else count, precision)
        raw = np.empty(min(CHUNK, widened.size), FLOATS[info.dtype])
        for part in chunks(widened.size):
            piece = raw[: part.stop - part.start]
            self._fill(piece, info, start + part.start)
            check_finite(piece, info)
            widen(piece, info.dtype, widened[part])
        return widened

    def shaped(self, info: TensorInfo, precision: type[np.floating[Any]]) -> NDArray[Any]:
        """A full tensor as floats, in its shape."""
        return self.values(info, precision).reshape(info.shape)


def check_finite(raw: NDArray[Any], info: TensorInfo) -> None:
    """Refuse NaN and infinity.

    Raises:
        InputError: naming the file.
    """
    if raw.size == 0 or info.dtype not in FLOATS:
        return
    if info.dtype == "BF16":
        finite = int((raw & 0x7FFF).max()) < 0x7F80
    else:
        finite = bool(np.isfinite(raw).all())
    if not finite:
        raise InputError("holds NaN or infinite values", where=str(info.file))


def widen(raw: NDArray[Any], dtype: str, out: NDArray[Any]) -> None:
    """Convert stored values to floats, into ``out`` (fp32 or fp64)."""
    if dtype != "BF16":
        np.copyto(out, raw, casting="same_kind" if out.dtype.itemsize >= raw.dtype.itemsize else "unsafe")
    elif out.dtype == np.float32:
        bits = out.view(np.uint32)
        np.copyto(bits, raw)
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, (raw.astype(np.uint32) << 16).view(np.float32))


def narrow(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Cast finite floats to a stored type, once, rounding to the nearest even.

    Raises:
        InputError: a value is beyond the range of the type.
    """
    if dtype == "BF16":
        single = np.ascontiguousarray(values, np.float32)
        bits = single.view(np.uint32)
        rounded = np.right_shift(bits, 16)
        np.bitwise_and(rounded, 1, out=rounded)
        np.add(rounded, 0x7FFF, out=rounded)
        np.add(rounded, bits, out=rounded)
        np.right_shift(rounded, 16, out=rounded)
        stored = rounded.astype(np.uint16)
        fits = stored.size == 0 or int((stored & 0x7FFF).max()) < 0x7F80
    else:
        with np.errstate(over="ignore"):
            stored = values.astype(FLOATS[dtype], copy=False)
        fits = bool(np.isfinite(stored).all())
    if not fits:
        raise InputError(f"the merged values exceed the range of {dtype}", hint="choose --dtype float32")
    return stored


def write_file(path: Path, tensors: Mapping[str, NDArray[Any]], dtypes: Sequence[str]) -> None:
    """Write a complete file of tensors held as stored values (bf16 as bits)."""
    layout = {
        name: (dtype, array.shape) for (name, array), dtype in zip(tensors.items(), dtypes, strict=True)
    }
    with ShardWriter(path, layout) as writer:
        for name, array in tensors.items():
            writer.write(name, array)
