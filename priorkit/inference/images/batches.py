"""Images encoded batch by batch: threads decode and prepare the next batches while the model encodes one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.process.threads import streamed_in_threads
from priorkit.data.images.decoding import BrokenImageError, ImageRef, decode_with_kinds
from priorkit.models.pretrained import model_name

M = TypeVar("M")
T = TypeVar("T")

_BATCHES_AHEAD = 2
"""Batches that are prepared before the model needs them."""


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


def _check_finite(features: Tensor, items: Sequence[Any], rows: Sequence[int], model: Any) -> None:
    """Refuse a model that makes no numbers of an image.

    Raises:
        InputError: naming the first such image and the model.
    """
    finite = features.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        index = int((~finite).nonzero()[0])
        image = getattr(items[index], "name", None) or f"image {rows[index] + 1}"
        raise InputError(
            f"its features of {image} are not finite ({int((~finite).sum())} of {len(items)} images of this batch)",
            where=model_name(model),
            hint="weights that are not finite or of a damaged file give such features, as may --precision bf16",
        )


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
        InputError: features are not finite.
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
            _check_finite(features, [items[row] for row in images], list(images), model)
        yield EncodedBatch(list(images), features, [image.kinds for image in images.values()], broken)
