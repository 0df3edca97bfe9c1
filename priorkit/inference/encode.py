"""From images to features: decoded by threads while the model works, shared among processes, cached.

:func:`encode_batches` yields features batch by batch; :func:`encode` collects them in memory. Both take any
model that prepares images, with a *transform* that says which features to take of a batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from priorkit.core import distributed, runtime
from priorkit.core.progress import track
from priorkit.data.images.decoding import KINDS, BrokenImageError, ImageRef, decode, decode_with_kinds
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.threads import streamed_in_threads

if TYPE_CHECKING:
    from priorkit.inference.feature_cache import FeatureCache
    from priorkit.models.multimodal.base import MultimodalModel
    from priorkit.models.vision.encoder import Encoder
    from priorkit.models.vision.towers import Pooling

M = TypeVar("M")
T = TypeVar("T")

_BATCHES_AHEAD = 2
"""Batches that are prepared before the model needs them."""


_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Dtypes that features may have."""


class PreparedImage(NamedTuple):
    """An image that is ready to be batched.

    Attributes:
        pixels: what the model's ``prepare`` returns, usually uint8 ``[3, height, width]``.
        kinds: what is unusual about the image, of :data:`priorkit.data.images.decoding.KINDS`.
    """

    pixels: Any
    kinds: tuple[str, ...] = ()


Load = Callable[[M, T], PreparedImage]
"""Prepares one item for a model; runs in threads and may raise BrokenImageError."""

Transform = Callable[[M, list[Any]], Tensor]
"""Features ``[batch, ...]`` of a batch of prepared images; runs without gradients."""


def load_image(model: Any, reference: ImageRef) -> PreparedImage:
    """Decode an image and prepare it for a model.

    Raises:
        BrokenImageError: see :func:`priorkit.data.images.decoding.decode`.
    """
    image, kinds = decode_with_kinds(reference)
    return PreparedImage(model.prepare(image), kinds)


def pooled_features(encoder: Encoder, prepared: list[Tensor]) -> Tensor:
    """L2-normalized pooled features, fp32 ``[batch, dim]`` on the CPU."""
    return encoder.encode_images(encoder.batch(prepared))


def patch_features(multimodal: MultimodalModel, prepared: list[Tensor]) -> Tensor:
    """The patch features that a multimodal model's projector reads, ``[batch, tokens, width]`` on its device."""
    return multimodal.patch_features(torch.stack(prepared).to(multimodal.device))


@dataclass(frozen=True)
class LayerFeatures:
    """A transform: pooled hidden states of several layers.

    Attributes:
        layers: numbers of hidden states, 0 the embeddings; empty for the encoder's pooled feature.
        pooling: how a hidden state becomes one vector.
    """

    layers: Sequence[int]
    pooling: Pooling

    def __call__(self, encoder: Encoder, prepared: list[Tensor]) -> Tensor:
        """fp32 ``[batch, layers, width]`` on the CPU; without layers ``[batch, 1, dim]``."""
        pixels = encoder.on_device(encoder.batch(prepared))
        output = encoder.forward_vision(pixels, hidden_states=bool(self.layers))
        if not self.layers:
            return output.features[:, None].float().cpu()
        return torch.stack([output.pooled(layer, self.pooling) for layer in self.layers], 1).float().cpu()


class EncodedBatch(NamedTuple):
    """Features of a batch.

    Attributes:
        rows: indices of the images that could be encoded.
        features: from the transform, ``[len(rows), ...]``; None where ``rows`` is empty.
        kinds: what is unusual about each of these images.
        broken: index of each broken image, with the reason.
    """

    rows: list[int]
    features: Tensor | None
    kinds: list[tuple[str, ...]]
    broken: dict[int, str]


def encode_batches(
    items: Sequence[T],
    model: M,
    transform: Transform[M],
    *,
    load: Load[M, T] = load_image,
    batch_size: int,
    threads: int | None,
    skip_broken: bool = False,
    select: Callable[[int], bool] = lambda batch: True,
) -> Iterator[EncodedBatch]:
    """Yield the features of one batch after the other.

    Which images share a batch depends only on the list and the batch size, so that rounding, which may
    depend on the batch, is the same however batches are distributed over processes.

    Args:
        items: the images, as ``load`` takes them: references by default.
        model: prepares and encodes images.
        transform: the features to take.
        load: prepares one item.
        batch_size: images per forward pass.
        threads: number of threads that load; 0 loads in the calling thread, None takes one per processor.
        skip_broken: report broken images in their batch instead of raising.
        select: which batches to encode, by number.

    Raises:
        BrokenImageError: an image cannot be decoded, and ``skip_broken`` is off.
    """

    def load_row(row: int) -> PreparedImage | BrokenImageError:
        try:
            return load(model, items[row])
        except BrokenImageError as error:
            if not skip_broken:
                raise
            return error

    starts = [start for number, start in enumerate(range(0, len(items), batch_size)) if select(number)]
    batches = [range(start, min(start + batch_size, len(items))) for start in starts]
    loaded = streamed_in_threads(
        load_row, itertools.chain.from_iterable(batches), threads, ahead=_BATCHES_AHEAD * batch_size
    )
    for batch in batches:
        images: dict[int, PreparedImage] = {}
        broken: dict[int, str] = {}
        for row, image in itertools.islice(loaded, len(batch)):
            if isinstance(image, BrokenImageError):
                broken[row] = str(image)
            else:
                images[row] = image
        features = None
        if images:
            with torch.no_grad():
                features = transform(model, [image.pixels for image in images.values()])
        yield EncodedBatch(list(images), features, [image.kinds for image in images.values()], broken)


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
        rejects: takes the broken images, counts unusual ones, and judges; None raises at a broken image.
        source: the images' source, for messages.
        title: of the progress bar.

    Raises:
        BrokenImageError: an image cannot be decoded, and there are no ``rejects``.
        InputError: too many broken images.
    """
    stored = None if cache is None else _looked_up(cache, device)
    reasons: dict[int, str] = {}
    if stored is None:
        batches = encode_batches(
            items, model(), transform, load=load, batch_size=batch_size, threads=threads,
            skip_broken=rejects is not None,
            select=lambda batch: batch % runtime.world_size() == runtime.rank(),
        )  # fmt: skip
        count = math.ceil(math.ceil(len(items) / batch_size) / runtime.world_size())
        tensors, reasons = _collected(track(batches, title, count, "batches"), len(items), device)
        if cache is not None and runtime.rank() == 0:
            cache.write(tensors)
    else:
        tensors = stored
    rows: list[int] = tensors["rows"].tolist()
    if rejects is not None:
        rejects.unusual.update(dict(zip(KINDS, tensors["unusual"].tolist(), strict=True)))
        _judge(items, rows, reasons, rejects, source)
    return EncodedImages(tensors["features"], rows, stored is not None)


def _looked_up(cache: FeatureCache, device: torch.device) -> dict[str, Tensor] | None:
    """The cached tensors; the first process reads and sends them, as the others may not have its disk."""
    tensors = cache.read() if runtime.rank() == 0 else None
    if not distributed.joined():
        return tensors
    shape = torch.zeros(5, dtype=torch.int64, device=device)
    if tensors is not None:
        sizes = tensors["features"].shape
        shape[: len(sizes) + 1] = torch.tensor([len(sizes), *sizes])
    dimensions, *sizes = distributed.total(shape).tolist()
    if not dimensions:
        return None
    if tensors is None:
        tensors = {
            "features": torch.zeros(sizes[:dimensions]),
            "rows": torch.zeros(sizes[0], dtype=torch.int64),
            "unusual": torch.zeros(len(KINDS), dtype=torch.int64),
        }
    # By name: the order of a file's tensors is its own, and every process must sum the same one at a time.
    return {name: distributed.total(tensors[name].to(device)).cpu() for name in sorted(tensors)}


def _collected(
    batches: Iterable[EncodedBatch], count: int, device: torch.device
) -> tuple[dict[str, Tensor], dict[int, str]]:
    """The features of all processes' batches, and the reasons of this process's broken images.

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
            features = torch.zeros(count, *values.shape[1:], dtype=values.dtype)
        features[batch.rows] = values
        good[batch.rows] = 1
        for kind in itertools.chain.from_iterable(batch.kinds):
            unusual[KINDS.index(kind)] += 1
    if distributed.joined():
        features = _summed(features, count, device)
        good = distributed.total(good.to(device)).cpu()
        unusual = distributed.total(unusual.to(device)).cpu()
    rows = good.nonzero()[:, 0]
    if features is None:
        features = torch.zeros(0, 1)
    elif len(rows) < count:
        features = features[rows]
    return {"features": features, "rows": rows, "unusual": unusual}, reasons


def _summed(features: Tensor | None, count: int, device: torch.device) -> Tensor | None:
    """The rows of all processes; one that had no batch learns shape and dtype from the others."""
    known = torch.zeros(runtime.world_size(), 4, dtype=torch.int64, device=device)
    if features is not None:
        known[runtime.rank(), 0] = _DTYPES.index(features.dtype)
        known[runtime.rank(), 1 : features.ndim] = torch.tensor(features.shape[1:])
    dtype, *shape = distributed.total(known).amax(0).tolist()
    sizes = [size for size in shape if size]
    if not sizes:
        return None
    values = torch.zeros(count, *sizes, dtype=_DTYPES[dtype]) if features is None else features
    return distributed.total(values.to(device)).cpu()


def _judge(
    references: Sequence[Any], rows: Sequence[int], reasons: Mapping[int, str], rejects: Rejects, source: str
) -> None:
    """Reject the images that could not be encoded, with the reason, and judge their share."""
    encoded = set(rows)
    for row, reference in enumerate(references):
        if row not in encoded:
            reason = reasons.get(row) or _reason(reference)
            rejects.add(source, row + 1, f"{reference.name}: {reason}")
    rejects.accept(len(rows))
    rejects.raise_if_over_limit()


def _reason(reference: ImageRef) -> str:
    """Why an image is broken that another process or an earlier run could not decode."""
    try:
        decode(reference)
    except BrokenImageError as error:
        return str(error)
    return "it did not decode when its features were computed"
