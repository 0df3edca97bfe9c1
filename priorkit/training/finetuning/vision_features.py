"""Image features for an objective: computed in every step, or once and cached where the encoder is frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from priorkit.core.process.runtime import Runtime, world_size
from priorkit.data.images.pixels import Pixels
from priorkit.inference.images.batches import PreparedImage
from priorkit.inference.images.encode import encode
from priorkit.inference.images.features import patch_features

CACHE_BYTES = 2 << 30
"""Largest size of the cached features of all images, in the memory of the device."""

BATCH = 32
"""Images per forward pass when all are encoded before the first step."""


class VisionFeatures(Protocol):
    """The source of image features of an objective."""

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """The image inputs of a batch; called in data-loading workers."""
        ...

    def of_batch(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Features ``[images, tokens, width]`` of a batch on the device; None where it has no images."""
        ...

    def example(self) -> Tensor:
        """The features of any one image, ``[1, tokens, width]``."""
        ...


class PerStepFeatures:
    """Patch features computed in every step.

    Pixels are prepared when batches are collated, so in the data-loading workers if there are any.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images by number.
        trained: whether the encoder gets gradients.
    """

    def __init__(self, multimodal: Any, pixels: Pixels, trained: bool) -> None:
        self._multimodal, self._pixels, self._trained = multimodal, pixels, trained

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """uint8 ``pixels`` ``[images, 3, height, width]``."""
        return {"pixels": torch.stack([self._pixels[image] for image in images])}

    def example(self) -> Tensor:
        """The features of the first image, ``[1, tokens, width]``."""
        features = self.of_batch({"pixels": self._pixels[0][None].to(self._multimodal.device)})
        assert features is not None
        return features

    def of_batch(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``[images, tokens, width]``."""
        if "pixels" not in batch:
            return None
        with nullcontext() if self._trained else torch.no_grad():
            return self._multimodal.patch_features(batch["pixels"])


class CachedFeatures:
    """Patch features of a frozen encoder, computed once for all images and kept in memory.

    They are computed before the first step, in order and in batches of a fixed size, so that a resumed run has
    the same bits.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images by number.
        runtime: device and precision.
        workers: threads that decode images.
    """

    def __init__(self, multimodal: Any, pixels: Pixels, runtime: Runtime, workers: int) -> None:
        with runtime.autocast():
            encoded = encode(
                range(len(pixels)), lambda: multimodal, patch_features, batch_size=BATCH, threads=workers,
                load=lambda _, image: PreparedImage(pixels[image]), device=runtime.device,
            )  # fmt: skip
        # Next to the model: read from main memory, every micro-batch would wait for its copy.
        self._features = encoded.features.to(runtime.device)

    def collate(self, images: Sequence[int]) -> dict[str, Tensor]:
        """The images' numbers: batches may be collated in another process."""
        return {"images": torch.tensor(images)}

    def example(self) -> Tensor:
        """The features of the first image, ``[1, tokens, width]``."""
        return self._features[:1]

    def of_batch(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """``[images, tokens, width]``."""
        if "images" not in batch:
            return None
        return self._features[batch["images"]]


def choose_features(
    multimodal: Any, pixels: Pixels, trained: bool, runtime: Runtime, workers: int, epochs: float
) -> PerStepFeatures | CachedFeatures:
    """Cache features where that saves work: frozen encoder, features fit into memory, enough epochs.

    Args:
        multimodal: has ``patch_features``.
        pixels: all images.
        trained: whether the encoder is trained.
        runtime: device and precision.
        workers: threads that decode images.
        epochs: epochs of the run. Every process caches all features, so with no more epochs than processes
            nothing would be saved.
    """
    # In one epoch an image is used once: the images of a run of the recipe 'pocket' would take 0.4 GB at its end.
    pixels.keep = epochs > 1
    if trained or not len(pixels) or epochs <= world_size():
        return PerStepFeatures(multimodal, pixels, trained)
    if len(pixels) * _image_bytes(multimodal, pixels, runtime) > CACHE_BYTES:
        return PerStepFeatures(multimodal, pixels, trained)
    pixels.keep = False
    return CachedFeatures(multimodal, pixels, runtime, workers)


def _image_bytes(multimodal: Any, pixels: Pixels, runtime: Runtime) -> int:
    """Bytes of one image's features, measured: they may be of several layers, and not in fp32."""
    with torch.no_grad(), runtime.autocast():
        features = multimodal.patch_features(pixels[0][None].to(runtime.device))
    return features.numel() * features.element_size()
