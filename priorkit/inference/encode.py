"""Embedding the images of a data set: shared among processes, kept between runs. A part of several steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from priorkit.core import runtime
from priorkit.core.progress import track
from priorkit.data.images.decoding import KINDS, BrokenImageError, ImageRef, decode
from priorkit.data.io.rejects import Rejects

if TYPE_CHECKING:
    from torch import Tensor

    from priorkit.inference.feature_cache import FeatureStore
    from priorkit.models.vision.encoder import Encoder


def embed_images(
    encoder: Callable[[], Encoder],
    refs: Sequence[ImageRef],
    store: FeatureStore,
    rejects: Rejects,
    *,
    source: str,
    device: Any,
    batch_size: int,
    threads: int,
    features: Callable[[Encoder, Any], Tensor] | None = None,
) -> tuple[Tensor, list[int], bool]:
    """Features of images, kept ones where there are any.

    Args:
        encoder: loads the encoder; called only where something is to be computed.
        refs: where the images are.
        store: where features are kept.
        rejects: takes the images that do not decode, counts unusual ones, and judges.
        source: the images' source, for messages.
        device: where sums over processes are taken.
        batch_size: images per forward pass.
        threads: threads that decode.
        features: what to take of a batch of prepared pixels; L2-normalised pooled features where None.

    Returns:
        Features ``[images that decode, ...]`` fp32 in main memory, their rows in ``refs``, and whether they
        were kept from before.
    """
    import torch

    from priorkit.core import distributed

    kept = store.read() if runtime.rank() == 0 else None
    # The first process tells the others what it found: not all of them need see the same disk.
    shape = torch.zeros(4, dtype=torch.int64, device=device)
    if kept is not None:
        sizes = kept["features"].shape
        shape[: len(sizes) + 1] = torch.tensor([len(sizes), *sizes])
    distributed.total(shape)
    if shape[0]:
        sizes = shape[1 : 1 + int(shape[0])].tolist()
        values = kept["features"] if kept else torch.zeros(sizes)
        rows = kept["rows"] if kept else torch.zeros(sizes[0], dtype=torch.int64)
        if distributed.joined():
            values = distributed.total(values.to(device)).cpu()
            rows = distributed.total(rows.to(device)).cpu()
    else:
        values, rows, unusual = _compute(encoder(), refs, device, batch_size, threads, features)
        kept = {"features": values, "rows": rows, "unusual": unusual}
        if runtime.rank() == 0:
            store.write(kept)
    chosen = rows.tolist()
    if kept:
        rejects.unusual.update(dict(zip(KINDS, kept["unusual"].tolist(), strict=True)))
    _judge(refs, chosen, rejects, source)
    return values, chosen, bool(shape[0])


def _compute(
    encoder: Encoder,
    refs: Sequence[ImageRef],
    device: Any,
    batch_size: int,
    threads: int,
    features: Callable[[Encoder, Any], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Features of the images that decode, their rows, and how many there are of each unusual kind."""
    import torch

    from priorkit.core import distributed
    from priorkit.data.images.prepared_batches import prepared_batches
    from priorkit.models.vision.encoder import l2_normalize

    take = features or (lambda encoder, pixels: l2_normalize(encoder.image_features(pixels)))
    size, number = runtime.world_size(), runtime.rank()
    total = -(-len(refs) // batch_size)
    batches = prepared_batches(
        refs, encoder.prepare, batch_size, threads, lambda batch: batch % size == number
    )
    values: Tensor | None = None
    good = torch.zeros(len(refs), dtype=torch.int64)
    unusual = torch.zeros(len(KINDS), dtype=torch.int64)
    with torch.no_grad():
        for rows, prepared, kinds in track(batches, "embed images", -(-total // size), "batches"):
            if not rows:
                continue
            pixels = encoder.batch(prepared)
            if isinstance(pixels, torch.Tensor):
                pixels = pixels.to(encoder.device)
            # Adding zero makes every zero positive, as the sum over processes does.
            found = take(encoder, pixels).float().cpu() + 0.0
            if values is None:
                values = torch.zeros(len(refs), *found.shape[1:])
            values[rows] = found
            good[rows] = 1
            for kind in itertools.chain.from_iterable(kinds):
                unusual[KINDS.index(kind)] += 1
    if distributed.joined():
        values = _shared(values, len(refs), device)
        good = distributed.total(good.to(device)).cpu()
        unusual = distributed.total(unusual.to(device)).cpu()
    rows = good.nonzero()[:, 0]
    if values is None:
        return torch.zeros(0, 1), rows, unusual
    return values if len(rows) == len(refs) else values[rows], rows, unusual


def _shared(values: Tensor | None, count: int, device: Any) -> Tensor | None:
    """Each process's rows put together; one that had no batch learns the width from the others."""
    import torch

    from priorkit.core import distributed

    sizes = torch.zeros(runtime.world_size(), 3, dtype=torch.int64, device=device)
    if values is not None:
        sizes[runtime.rank(), : values.ndim - 1] = torch.tensor(values.shape[1:])
    widest = [size for size in distributed.total(sizes).amax(0).tolist() if size]
    if not widest:
        return None
    own = torch.zeros(count, *widest) if values is None else values
    return distributed.total(own.to(device)).cpu()


def _judge(refs: Sequence[ImageRef], good: Sequence[int], rejects: Rejects, source: str) -> None:
    """Note the images that did not decode, with the reason, and judge their share."""
    known = set(good)
    for row, ref in enumerate(refs):
        if row in known:
            continue
        try:
            decode(ref)
            reason = "it did not decode when its features were computed"
        except BrokenImageError as error:
            reason = str(error)
        rejects.add(source, row + 1, f"{ref.name}: {reason}")
    rejects.accept(len(good))
    rejects.raise_if_over_limit()
