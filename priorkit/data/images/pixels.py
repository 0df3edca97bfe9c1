"""Pixels at an encoder's resolution: resized and cropped once, kept as uint8, normalized per batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from priorkit.data.images.augmentation import AugmentationSettings, View, draw_view
from priorkit.data.images.decoding import ImageRef, decode

if TYPE_CHECKING:
    from PIL import Image

KEEP_BYTES = 1 << 30
"""Prepared images are kept in memory up to this size; beyond it they are decoded each time."""


class Pixels:
    """The images of a data set at an encoder's resolution.

    Args:
        refs: where the images are.
        prepare: resizes and crops a decoded image to uint8 ``[3, height, width]``.

    Attributes:
        keep: whether prepared images are kept in memory, for those that are used again.
    """

    def __init__(self, refs: Sequence[ImageRef], prepare: Callable[[Image.Image], Tensor]) -> None:
        self.keep = True
        self._refs = refs
        self._prepare = prepare
        self._kept: dict[int, Tensor] = {}
        self._sources: dict[int, Image.Image] = {}
        self._size: tuple[int, int] | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 ``[3, height, width]``."""
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = self._prepare(decode(self._refs[index]))
            if self.keep and self._bytes < KEEP_BYTES:
                self._kept[index] = pixels
                self._bytes += pixels.numel()
        return pixels

    def draw(self, index: int, settings: AugmentationSettings, seed: int) -> View:
        """The view of an image for a seed."""
        size = self._source(index).size if settings.augment_crop < 1 else (1, 1)
        return draw_view(settings, seed, size, self.size[1] if settings.augments else 1)

    def view(self, index: int, view: View) -> Tensor:
        """An augmented image, uint8 ``[3, height, width]``."""
        return view.apply(self[index] if view.crop is None else self._cropped(index, view.crop))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the prepared images in pixels."""
        if self._size is None:
            height, width = self[0].shape[-2:]
            self._size = (height, width)
        return self._size

    def _cropped(self, index: int, crop: tuple[float, float, float, float]) -> Tensor:
        """A crop of the source, resized with bicubic interpolation to the encoder's resolution."""
        from PIL import Image

        source = self._source(index)
        height, width = self.size
        box = (
            crop[0] * source.width,
            crop[1] * source.height,
            crop[2] * source.width,
            crop[3] * source.height,
        )
        resized = source.resize((width, height), Image.Resampling.BICUBIC, box=box)
        return torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1).contiguous()

    def _source(self, index: int) -> Image.Image:
        image = self._sources.get(index)
        if image is None:
            image = decode(self._refs[index])
            size = 3 * image.width * image.height
            if self._bytes + size < KEEP_BYTES:
                self._sources[index] = image
                self._bytes += size
        return image
