"""Pooled features of entity images, cached between runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.data.images.entities import EntityImages
from priorkit.data.io.rejects import Rejects
from priorkit.inference.images.encode import EncodedImages, encode
from priorkit.inference.images.feature_cache import FeatureCache, cache_folder, input_digest
from priorkit.inference.images.features import pooled_features

if TYPE_CHECKING:
    from collections.abc import Callable

    from priorkit.core.inputs import Input
    from priorkit.data.images.entity_sources import EntityLayout
    from priorkit.models.multimodal.image_part import ImagePart
    from priorkit.models.vision.encoder import Encoder

logger = logging.getLogger(__name__)


def encode_entities(
    load: Callable[[], Encoder | ImagePart],
    entities: EntityImages,
    rejects: Rejects,
    *,
    encoder: Input,
    images: Input,
    layout: EntityLayout,
    folder: str | None,
    started: Runtime,
    batch_size: int,
    threads: int,
) -> tuple[EntityImages, EncodedImages]:
    """L2-normalized pooled features of entity images, and the entities without their broken images.

    Args:
        load: loads the encoder; called only if the features are not cached.
        entities: what was read.
        rejects: takes the broken images and judges.
        encoder: the encoder's input, for its digest.
        images: the images' input, for its digest and for messages.
        layout: how the images are read, which decides their order.
        folder: folder of the feature cache; the user's where None.
        started: the run's device and precision.
        batch_size: images per forward pass.
        threads: number of threads that decode.

    Raises:
        InputError: too many broken images, or features that are zero.
    """
    key: dict[str, Any] = {
        "encoder": input_digest(encoder),
        "images": input_digest(images),
        "layout": repr(layout),
        "of": "pooled image features",
        "precision": started.precision,
        "device": started.device.type,
        "batch_size": batch_size,
    }
    cache = FeatureCache(Path(folder).expanduser() if folder else cache_folder(), key)
    encoded = encode(
        entities.images, load, pooled_features, cache, batch_size=batch_size, threads=threads,
        device=started.device, rejects=rejects, source=images.given,
    )  # fmt: skip
    blank = (encoded.features == 0).all(1).nonzero()
    if len(blank):
        image = entities.images[encoded.rows[int(blank[0])]].name
        raise InputError(
            f"its features of {image} are zero ({len(blank)} of {len(encoded.rows)} images); they have no direction",
            where=encoder.given,
        )
    if encoded.cached:
        logger.info(f"  image features from the cache: {cache.path}")
    complete = len(encoded.rows) == len(entities.images)
    return entities if complete else entities.keep(encoded.rows), encoded
