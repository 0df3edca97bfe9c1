"""Teachers' features of the entity images, computed once per fixed view and cached for later runs."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from priorkit.data.images.augmentation import View
from priorkit.data.images.pixels import Pixels
from priorkit.inference.images.batches import PreparedImage
from priorkit.inference.images.encode import EncodedImages, encode
from priorkit.inference.images.feature_cache import FeatureCache, cache_folder
from priorkit.inference.images.features import pooled_features
from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.views import ViewSchedule

logger = logging.getLogger(__name__)

BATCH = 64
"""Images per forward pass of a teacher."""


def teacher_features(
    encoder: Encoder, pixels: Pixels, views: ViewSchedule, title: str, key: dict[str, Any], threads: int = 0
) -> Tensor:
    """A teacher's features of every fixed view of every image, from the cache where possible.

    Args:
        encoder: the teacher, on its device; it needs no text tower.
        pixels: the images at the teacher's own resolution.
        views: the student's views; the teacher gets the same ones.
        title: of the progress bar.
        key: JSON-compatible values that decide the features, see :class:`FeatureCache`.
        threads: number of threads that decode.

    Returns:
        L2-normalized fp32 ``[views, images, width]``.
    """

    def of_view(number: int) -> EncodedImages:
        def load(_: Encoder, index: int) -> PreparedImage:
            view = views.fixed_view(index, number) if views.fixed else View()
            return PreparedImage(pixels.view(index, view))

        cache = FeatureCache(cache_folder(), {"of": "teacher features", **key, "view": number})
        return encode(
            range(len(pixels)), lambda: encoder, pooled_features, cache, load=load, batch_size=BATCH,
            threads=threads, device=encoder.device, title=title,
        )  # fmt: skip

    encoded = [of_view(number) for number in range(max(1, views.fixed))]
    if all(view.cached for view in encoded):
        logger.info(f"  {title}: features from the cache ({cache_folder()})")
    return torch.stack([view.features for view in encoded])
