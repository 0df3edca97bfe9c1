"""Images for an objective: looked at anew each time, or once where the encoder is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from priorkit.core.runtime import Runtime, world_size
from priorkit.data.images.pixels import Pixels
from priorkit.inference.images.batches import PreparedImage
from priorkit.inference.images.encode import encode
from priorkit.inference.images.features import patch_features

KEEP_BYTES = 2 << 30
"""Features of all images are kept in memory up to this size."""

BATCH = 32
"""Images per forward pass when all are encoded before the first step."""


class FreshViews:
    """Patch features computed in every step.

    Pixels are prepared where batches are put together, so in the worker processes where there are any.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images by number.
        trained: whether gradients flow into the encoder.
    """

    def __init__(self, multimodal: Any, pixels: Pixels, trained: bool) -> None:
        self._multimodal, self._pixels, self._trained = multimodal, pixels, trained

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """uint8 ``pixels`` ``[images, 3, height, width]``."""
        return {"pixels": torch.stack([self._pixels[image] for image in images])}

    def some(self) -> Tensor:
        """The features of one image, whichever."""
        found = self.features({"pixels": self._pixels[0][None].to(self._multimodal.device)})
        assert found is not None
        return found

    def features(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``[images, tokens, width]``."""
        if "pixels" not in batch:
            return None
        with nullcontext() if self._trained else torch.no_grad():
            return self._multimodal.patch_features(batch["pixels"])


class KeptViews:
    """Patch features of a frozen encoder, computed once for all images in their order and kept.

    All of them are computed before the first step in batches that depend on nothing else, so that a
    resumed run has the same ones to the bit.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images by number.
        runtime: device and precision.
        workers: threads that decode images.
    """

    def __init__(self, multimodal: Any, pixels: Pixels, runtime: Runtime, workers: int) -> None:
        self._device = runtime.device
        with runtime.autocast():
            encoded = encode(
                range(len(pixels)), lambda: multimodal, patch_features, batch_size=BATCH, threads=workers,
                load=lambda _, image: PreparedImage(pixels[image]), device=runtime.device,
            )  # fmt: skip
        self._features = encoded.features

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """The images' numbers: batches may be put together in another process than this one."""
        return {"images": torch.tensor(images)}

    def some(self) -> Tensor:
        """The features of one image, whichever."""
        return self._features[:1].to(self._device)

    def features(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``[images, tokens, width]``."""
        if "images" not in batch:
            return None
        return self._features[batch["images"].cpu()].to(self._device, non_blocking=True)


def views_of(
    multimodal: Any, pixels: Pixels, trained: bool, runtime: Runtime, workers: int, passes: float
) -> FreshViews | KeptViews:
    """Keep features where that saves work: a frozen encoder, features that fit, images seen often enough.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images.
        trained: whether the encoder is trained.
        runtime: device and precision.
        workers: threads that decode images.
        passes: how often the run goes over its data. Every process keeps all features, so with as many
            passes as processes nothing would be saved.
    """
    if trained or not len(pixels) or passes <= world_size():
        return FreshViews(multimodal, pixels, trained)
    if len(pixels) * _image_bytes(multimodal, pixels, runtime) > KEEP_BYTES:
        return FreshViews(multimodal, pixels, trained)
    return KeptViews(multimodal, pixels, runtime, workers)


def _image_bytes(multimodal: Any, pixels: Pixels, runtime: Runtime) -> int:
    """Size of one image's features, measured: they may be of several layers, and of another type than fp32."""
    with torch.no_grad(), runtime.autocast():
        found = multimodal.patch_features(pixels[0][None].to(runtime.device))
    return found.numel() * found.element_size()
