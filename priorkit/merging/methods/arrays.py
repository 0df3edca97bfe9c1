"""The few operations in which numpy and torch differ, so that each method is written once.

Methods compute on numpy arrays on the CPU, which needs neither torch's start-up time nor its memory, and
on torch tensors on a GPU. Both share operators, ``reshape``, slicing and ``sum``; the rest is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any
"""A numpy array or a torch tensor of floats."""

CHUNK = 1 << 16
"""Values handled at a time on the CPU: temporaries stay in the processor's cache."""


def is_numpy(array: Array) -> TypeGuard[NDArray[Any]]:
    """Whether an array is numpy's."""
    return isinstance(array, np.ndarray)


def library(array: Array) -> ModuleType:
    """numpy or torch, whichever an array belongs to."""
    if is_numpy(array):
        return np
    import torch

    return torch


def chunks(array: Array) -> Iterable[slice]:
    """Slices over a flat array: small ones on the CPU, all at once elsewhere."""
    count = math.prod(array.shape)
    step = CHUNK if is_numpy(array) else max(count, 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def as_array_of(array: Array, values: np.ndarray[Any, Any]) -> Array:
    """numpy values in the library and on the device of an array."""
    if is_numpy(array):
        return values
    import torch

    return torch.as_tensor(values).to(array.device)


def scalar(array: Array, value: float) -> Any:
    """A number that, multiplied with booleans, gives the array's type."""
    return array.dtype.type(value) if is_numpy(array) else value


def inner(a: Array, b: Array) -> float:
    """The inner product of two arrays, accumulated in float64."""
    first, second, total = a.reshape(-1), b.reshape(-1), 0.0
    on_cpu = isinstance(first, np.ndarray)
    for part in chunks(first):
        if on_cpu:
            x = first[part].astype(np.float64, copy=False)
            y = x if a is b else second[part].astype(np.float64, copy=False)
            total += float(np.dot(x, y))
        else:
            total += float((first[part].double() * second[part].double()).sum())
    return total


def gram(arrays: Sequence[Array]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All inner products of some arrays, shape ``[n, n]``, float64."""
    products = np.empty((len(arrays), len(arrays)))
    for row, a in enumerate(arrays):
        for column in range(row + 1):
            products[row, column] = products[column, row] = inner(a, arrays[column])
    return products


def absolute_sum(array: Array) -> float:
    """The sum of magnitudes, accumulated in float64."""
    flat = array.reshape(-1)
    if is_numpy(flat):
        return math.fsum(float(np.abs(flat[part]).sum(dtype=np.float64)) for part in chunks(flat))
    return float(flat.abs().double().sum())


def rank_band(array: Array, start: int, stop: int) -> Array:
    """A mask of the values whose magnitudes rank from ``start`` to ``stop``.

    Ranks count from 0 in ascending order of magnitude, equal magnitudes in the order of their positions,
    so exactly ``stop - start`` values are chosen, the same on every device.

    Returns:
        booleans, flat.
    """
    flat = array.reshape(-1)
    count = math.prod(flat.shape)
    start, stop = max(0, start), min(stop, count)
    if start >= stop:
        return flat != flat
    if start == 0 and stop == count:
        return flat == flat
    low, high = _order_statistics(flat, start, stop - 1)
    xp = library(flat)
    mask = xp.empty_like(flat, dtype=bool if xp is np else xp.bool)
    for part in chunks(flat):
        size = abs(flat[part])
        mask[part] = (size >= low) & (size <= high)
    if int(mask.sum()) != stop - start:
        _resolve_ties(flat, mask, (low, start), (high, stop))
    return mask


def _order_statistics(flat: Array, first: int, second: int) -> tuple[Array, Array]:
    """The magnitudes of two ranks."""
    if is_numpy(flat):
        sizes = np.abs(flat)
        # Bit patterns of non-negative floats are ordered like the floats and are partitioned faster.
        bits = sizes.view(np.int32 if sizes.itemsize == 4 else np.int64)
        bits.partition(first)
        low, upper = sizes[first], bits[first:]
        if second == bits.size - 1:
            return low, upper.max().view(sizes.dtype)
        upper.partition(second - first)
        return low, sizes[second]
    sizes = flat.abs()
    return sizes.kthvalue(first + 1).values, sizes.kthvalue(second + 1).values


def _resolve_ties(flat: Array, mask: Array, start: tuple[Array, int], stop: tuple[Array, int]) -> None:
    """Of the values that equal an edge of the band, drop those whose position puts them outside."""
    sizes = abs(flat)

    def places_and_cut(edge: Array, rank: int) -> tuple[Array, int]:
        equal: Any = (sizes == edge).nonzero()
        # numpy returns a tuple of positions by dimension, torch a matrix of them.
        places: Array = equal.reshape(-1) if library(flat) is not np else equal[0]
        return places, rank - int((sizes < edge).sum())

    if start[1] > 0:
        places, cut = places_and_cut(*start)
        mask[places[:cut]] = False
    if stop[1] < math.prod(flat.shape):
        places, cut = places_and_cut(*stop)
        mask[places[cut:]] = False
