"""Controls: the same questions about images of other questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef, image_key
from priorkit.evaluation.tasks.item import Item


def shuffle_images(items: Sequence[Item], seed: int, name: str) -> list[Item]:
    """Give every question the images of another one; no question gets its own image.

    The distinct images are put on a ring in random order and each is replaced by the next, so that
    questions about one image stay together and every image is shown as often as it was asked about.
    Tags move with their image. What accuracy is left comes from the question and from what images have in common, while, unlike in a
    blind run, there is something to see.

    Raises:
        InputError: there are fewer than two images.
    """
    images: dict[tuple[str, ...], tuple[ImageRef, ...]] = {}
    tags: dict[tuple[str, ...], tuple[str, ...] | None] = {}
    for item in items:
        if item.images:
            images.setdefault(key := _key(item), item.images)
            if tags.get(key) is None:
                tags[key] = item.tags
    if len(images) < 2:
        raise InputError(f"{len(images)} images cannot be shuffled", where=f"{name}, --shuffle-images")
    keys = list(images)
    ring = [keys[index] for index in np.random.Generator(np.random.PCG64(seed)).permutation(len(keys))]
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    shuffled: list[Item] = []
    for item in items:
        if not item.images:
            shuffled.append(item)
            continue
        other = following[_key(item)]
        references = images[other]
        shuffled.append(replace(item, image=references[0], more_images=references[1:], tags=tags[other]))
    return shuffled


def _key(item: Item) -> tuple[str, ...]:
    return tuple(image_key(image) for image in item.images)
