"""Features of all images: encoded in batches, distributed over processes, cached on disk.

Features that are large are in a file that is mapped into memory from the first batch on, as cached ones are, so that
patch tokens of many images need no memory of their size.

Any model that prepares images can be used, with a *transform* that says which features to take of a batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from priorkit.core.process import distributed, runtime
from priorkit.core.process.progress import track
from priorkit.data.images.decoding import KINDS, BrokenImageError, ImageRef, decode
from priorkit.data.io.rejects import Rejects
from priorkit.inference.images.batches import EncodedBatch, Load, Transform, encode_batches, load_image

if TYPE_CHECKING:
    from priorkit.inference.images.feature_cache import FeatureCache

M = TypeVar("M")
T = TypeVar("T")


_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Dtypes that features may have."""

MAPPED_FROM = 256 << 20
"""Bytes of features from which on they are in a file."""

_PART_BYTES = 64 << 20
"""Bytes of features that processes sum at a time."""


@dataclass(frozen=True)
class EncodedImages:
    """Features of a list of images.

    Attributes:
        features: ``[images that decode, ...]`` on the CPU.
        rows: their indices in the list.
        cached: whether they come from the cache.
    """

    features: Tensor
    rows: list[int]
    cached: bool


def encode(
    items: Sequence[T],
    model: Callable[[], M],
    transform: Transform[M],
    cache: FeatureCache | None = None,
    *,
    load: Load[M, T] = load_image,
    batch_size: int,
    threads: int | None,
    device: torch.device,
    rejects: Rejects | None = None,
    source: str = "",
    title: str = "encode images",
) -> EncodedImages:
    """Features of all images; every process of a distributed run calls this and gets all of them.

    Args:
        items: the images, as ``load`` takes them; with ``rejects``, references.
        model: loads the model; called only if something has to be encoded.
        transform: the features to take.
        cache: where features are looked up and stored; None for no cache.
        load: prepares one item.
        batch_size: images per forward pass.
        threads: as for :func:`encode_batches`.
        device: of this process's messages to the others.
        rejects: gets the broken images and the counts of unusual ones, and limits them; None raises at a broken image.
        source: the images' source, for messages.
        title: of the progress bar.

    Raises:
        BrokenImageError: an image cannot be decoded, and there are no ``rejects``.
        InputError: too many broken images.
    """
    stored = None if cache is None else _read_cache(cache, device)
    reasons: dict[int, str] = {}
    if stored is None:
        batches = encode_batches(
            items, model(), transform, load=load, batch_size=batch_size, threads=threads,
            skip_broken=rejects is not None,
            select=lambda batch: batch % runtime.world_size() == runtime.rank(),
        )  # fmt: skip
        count = math.ceil(math.ceil(len(items) / batch_size) / runtime.world_size())
        tensors, reasons = _collect(track(batches, title, count, "batches"), len(items), device, cache)
        if cache is not None and runtime.rank() == 0:
            cache.write(tensors)
    else:
        tensors = stored
    rows: list[int] = tensors["rows"].tolist()
    if rejects is not None:
        rejects.unusual.update(dict(zip(KINDS, tensors["unusual"].tolist(), strict=True)))
        _reject_broken(items, rows, reasons, rejects, source)
    return EncodedImages(tensors["features"], rows, stored is not None)


def _read_cache(cache: FeatureCache, device: torch.device) -> dict[str, Tensor] | None:
    """The cached tensors; the first process reads and sends them, as the others may not share its disk."""
    tensors = cache.read() if runtime.rank() == 0 else None
    if not distributed.joined():
        return tensors
    form = torch.zeros(6, dtype=torch.int64, device=device)
    if tensors is not None:
        features = tensors["features"]
        form[: features.ndim + 2] = torch.tensor(
            [features.ndim, _DTYPES.index(features.dtype), *features.shape]
        )
    dimensions, dtype, *sizes = distributed.total(form).tolist()
    if not dimensions:
        return None
    if tensors is None:
        tensors = {
            "features": _zeros(tuple(sizes[:dimensions]), _DTYPES[dtype], cache),
            "rows": torch.zeros(sizes[0], dtype=torch.int64),
            "unusual": torch.zeros(len(KINDS), dtype=torch.int64),
        }
    # Sorted: the order of a file's tensors is arbitrary, and all processes must sum the same tensor.
    return {name: _total_by_parts(tensors[name], device) for name in sorted(tensors)}


def _collect(
    batches: Iterable[EncodedBatch], count: int, device: torch.device, cache: FeatureCache | None
) -> tuple[dict[str, Tensor], dict[int, str]]:
    """The features of all processes' batches, and the reasons of this process's broken images.

    Large features are in a file of the cache's folder.

    Returns:
        ``features`` ``[images that decode, ...]``, ``rows`` their indices, ``unusual`` the number of images of
        each kind; and reasons by row.
    """
    features: Tensor | None = None
    good = torch.zeros(count, dtype=torch.int64)
    unusual = torch.zeros(len(KINDS), dtype=torch.int64)
    reasons: dict[int, str] = {}
    for batch in batches:
        reasons |= batch.broken
        if batch.features is None:
            continue
        # Adding zero makes every zero positive, as the sum over processes does.
        values = batch.features.cpu() + 0.0
        if features is None:
            features = _zeros((count, *values.shape[1:]), values.dtype, cache)
        features[batch.rows] = values
        good[batch.rows] = 1
        for kind in itertools.chain.from_iterable(batch.kinds):
            unusual[KINDS.index(kind)] += 1
    if distributed.joined():
        features = _sum_over_processes(features, count, device, cache)
        good = distributed.total(good.to(device)).cpu()
        unusual = distributed.total(unusual.to(device)).cpu()
    rows = good.nonzero()[:, 0]
    if features is None:
        features = torch.zeros(0, 1)
    elif len(rows) < count:
        features = features[rows]
    return {"features": features, "rows": rows, "unusual": unusual}, reasons


def _sum_over_processes(
    features: Tensor | None, count: int, device: torch.device, cache: FeatureCache | None
) -> Tensor | None:
    """The features of all processes; a process without a batch gets shape and dtype from the others."""
    formats = torch.zeros(runtime.world_size(), 4, dtype=torch.int64, device=device)
    if features is not None:
        formats[runtime.rank(), 0] = _DTYPES.index(features.dtype)
        formats[runtime.rank(), 1 : features.ndim] = torch.tensor(features.shape[1:])
    dtype, *shape = distributed.total(formats).amax(0).tolist()
    sizes = [size for size in shape if size]
    if not sizes:
        return None
    values = _zeros((count, *sizes), _DTYPES[dtype], cache) if features is None else features
    return _total_by_parts(values, device)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, cache: FeatureCache | None) -> Tensor:
    """Zeros in memory, or in a file where they are large and there is a cache."""
    if cache is not None and math.prod(shape) * dtype.itemsize >= MAPPED_FROM:
        mapped = cache.mapped_zeros(shape, dtype)
        if mapped is not None:
            return mapped
    return torch.zeros(shape, dtype=dtype)


def _total_by_parts(values: Tensor, device: torch.device) -> Tensor:
    """Sum a tensor over all processes, part by part: the messages, and what is on the device, stay small."""
    rows = max(1, _PART_BYTES // max(1, values[:1].nbytes))
    for part in values.split(rows) if len(values) else ():
        part.copy_(distributed.total(part.to(device)))
    return values


def _reject_broken(
    references: Sequence[Any], rows: Sequence[int], reasons: Mapping[int, str], rejects: Rejects, source: str
) -> None:
    """Reject the images that could not be encoded, with the reason.

    Raises:
        InputError: their share is over the limit.
    """
    encoded = set(rows)
    for row, reference in enumerate(references):
        if row not in encoded:
            reason = reasons.get(row) or _broken_reason(reference)
            rejects.add(source, row + 1, f"{reference.name}: {reason}")
    rejects.accept(len(rows))
    rejects.raise_if_over_limit()


def _broken_reason(reference: ImageRef) -> str:
    """Why an image is broken that another process or an earlier run could not decode."""
    try:
        decode(reference)
    except BrokenImageError as error:
        return str(error)
    return "it did not decode when its features were computed"
