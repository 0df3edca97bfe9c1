"""Teachers: their features of the entity images, computed once per fixed view and kept for later runs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from priorkit.core.artifact import replace_durably
from priorkit.core.progress import track
from priorkit.core.runtime import rank
from priorkit.core.seeds import stream_seed
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.pixels import Pixels
from priorkit.inference.feature_cache import cache_folder, decisive_versions
from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)

BATCH = 64
"""Images per forward pass of a teacher."""


@dataclass(frozen=True)
class ViewSchedule:
    """How each image is seen, and when.

    Attributes:
        pixels: the images at the student's resolution.
        augmentation: how far views may go.
        seed: the run's seed.
        fixed: number of views of each image, seen in turn epoch by epoch; 0 for a new one every time.
    """

    pixels: Pixels
    augmentation: AugmentationSettings
    seed: int
    fixed: int

    def number(self, position: int) -> int:
        """Which view is due at a position of the stream; 0 where they are not numbered."""
        return position // len(self.pixels) % self.fixed if self.fixed else 0

    def at(self, index: int, position: int) -> View:
        """The view of an image at a position of the stream."""
        if self.fixed:
            return self.numbered(index, self.number(position))
        return self.pixels.draw(index, self.augmentation, stream_seed(self.seed, position))

    def numbered(self, index: int, number: int) -> View:
        """One of the fixed views of an image."""
        place = index * self.fixed + number
        return self.pixels.draw(index, self.augmentation, stream_seed(self.seed, place + (1 << 41)))


@dataclass(frozen=True)
class Teacher:
    """A teacher's features of the entity images.

    Attributes:
        features: L2-normalised fp32 ``[views, images, teacher width]`` in main memory.
        weight: ``w_m`` of the feature term.
        relational_weight: weight of the relational term.
    """

    features: Tensor
    weight: float
    relational_weight: float = 0.0


def cache_key(**parts: Any) -> str:
    """A digest of all that features depend on; the parts are JSON-compatible, versions are added."""
    text = json.dumps({**parts, "versions": decisive_versions()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def teacher_features(encoder: Encoder, pixels: Pixels, views: ViewSchedule, title: str, key: str) -> Tensor:
    """A teacher's features of every fixed view of every image, from the cache where they are there.

    Args:
        encoder: the teacher, on its device; it needs no text tower.
        pixels: the images at the teacher's own resolution.
        views: the student's views; the teacher sees the same ones.
        title: what the progress bar is called.
        key: from :func:`cache_key`.

    Returns:
        L2-normalised fp32 ``[views, images, width]``.
    """
    file = cache_folder() / f"{key}.safetensors"
    count = max(1, views.fixed)
    found = _cached(file, count, len(pixels))
    if found is not None:
        logger.info(f"  {title}: features from the cache ({file})")
        return found
    batches = track(_batches(encoder, pixels, views), title, count * -(-len(pixels) // BATCH), "batches")
    features = encoder.encode_images(batches)
    features = features.view(count, len(pixels), -1).contiguous()
    if rank() == 0:
        _keep(file, features)
    return features


def _batches(encoder: Encoder, pixels: Pixels, views: ViewSchedule) -> Iterator[Tensor | list[Tensor]]:
    for number in range(max(1, views.fixed)):
        for start in range(0, len(pixels), BATCH):
            indices = range(start, min(start + BATCH, len(pixels)))
            seen = (views.numbered(index, number) if views.fixed else View() for index in indices)
            yield encoder.batch([pixels.view(i, view) for i, view in zip(indices, seen, strict=True)])


def _cached(file: Path, views: int, images: int) -> Tensor | None:
    try:
        features = load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    return features if features.shape[:2] == (views, images) else None


def _keep(file: Path, features: Tensor) -> None:
    """Write the cache; a cache that cannot be written costs time, not the run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(file, lambda temporary: save_file({"features": features}, temporary))
    except (OSError, SafetensorError) as error:
        logger.warning(f"the teacher's features cannot be kept for later runs: {error}")
