"""Images of prompts: decoded in threads and scaled down to a stated bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from priorkit.core.process.threads import in_threads
from priorkit.data.images.decoding import ImageRef, decode

if TYPE_CHECKING:
    from PIL import Image


def decode_bounded(ref: ImageRef, max_pixels: int) -> Image.Image:
    """Decode an image; one of more pixels is scaled down to at most as many, with its aspect ratio.

    Args:
        ref: the image.
        max_pixels: the bound; 0 for none beyond that of :func:`priorkit.data.images.decoding.decode`.

    Raises:
        BrokenImageError: it cannot be decoded.
    """
    image = decode(ref)
    size = bounded_size(image.size, max_pixels)
    if size == image.size:
        return image
    from PIL import Image

    return image.resize(size, Image.Resampling.LANCZOS)


def bounded_size(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Width and height scaled down to at most ``max_pixels``; as they are where that is 0."""
    width, height = size
    if not max_pixels or width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))


def decode_all(
    images: Sequence[Sequence[ImageRef]], max_pixels: int, workers: int
) -> list[list[Image.Image]]:
    """The images of several prompts, each distinct one decoded once."""
    distinct = list({id(ref): ref for refs in images for ref in refs}.values())
    decoded = in_threads(lambda ref: decode_bounded(ref, max_pixels), distinct, workers)
    found = {id(ref): image for ref, image in zip(distinct, decoded, strict=True)}
    return [[found[id(ref)] for ref in refs] for refs in images]
