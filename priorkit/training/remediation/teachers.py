"""Teachers' features of the entity images, computed once per fixed view and cached for later runs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from priorkit.core.artifact import replace_durably
from priorkit.core.progress import track
from priorkit.core.runtime import rank
from priorkit.data.images.augmentation import View
from priorkit.data.images.pixels import Pixels
from priorkit.inference.feature_cache import cache_folder, decisive_versions
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.views import ViewSchedule

logger = logging.getLogger(__name__)

BATCH = 64
"""Images per forward pass of a teacher."""


def cache_key(**parts: Any) -> str:
    """A digest of everything that the features depend on; the parts are JSON-compatible, versions are added."""
    text = json.dumps({**parts, "versions": decisive_versions()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def teacher_features(encoder: Encoder, pixels: Pixels, views: ViewSchedule, title: str, key: str) -> Tensor:
    """A teacher's features of every fixed view of every image, from the cache where possible.

    Args:
        encoder: the teacher, on its device; it needs no text tower.
        pixels: the images at the teacher's own resolution.
        views: the student's views; the teacher gets the same ones.
        title: of the progress bar.
        key: from :func:`cache_key`.

    Returns:
        L2-normalized fp32 ``[views, images, width]``.
    """
    file = cache_folder() / f"{key}.safetensors"
    count = max(1, views.fixed)
    cached = _read_cache(file, count, len(pixels))
    if cached is not None:
        logger.info(f"  {title}: features from the cache ({file})")
        return cached
    batches = track(_batches(encoder, pixels, views), title, count * -(-len(pixels) // BATCH), "batches")
    features = encoder.encode_images(batches)
    features = features.view(count, len(pixels), -1).contiguous()
    if rank() == 0:
        _write_cache(file, features)
    return features


def _batches(encoder: Encoder, pixels: Pixels, views: ViewSchedule) -> Iterator[Tensor | list[Tensor]]:
    for number in range(max(1, views.fixed)):
        for start in range(0, len(pixels), BATCH):
            indices = range(start, min(start + BATCH, len(pixels)))
            drawn = (views.fixed_view(index, number) if views.fixed else View() for index in indices)
            yield encoder.batch([pixels.view(i, view) for i, view in zip(indices, drawn, strict=True)])


def _read_cache(file: Path, views: int, images: int) -> Tensor | None:
    try:
        features = load_file(file)["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    return features if features.shape[:2] == (views, images) else None


def _write_cache(file: Path, features: Tensor) -> None:
    """Write the cache; a failure costs time in later runs, not this run."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(file, lambda temporary: save_file({"features": features}, temporary))
    except (OSError, SafetensorError) as error:
        logger.warning(f"the teacher's features cannot be cached: {error}")
