"""Pixels as an encoder reads them: resized and cropped once, kept as uint8, normalised per batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from priorkit.data.images import ImageRef, decode

if TYPE_CHECKING:
    from PIL import Image

KEEP_BYTES = 1 << 30
"""Prepared images are kept in memory up to this size; beyond it they are decoded anew each time."""


class Pixels:
    """The images of a data set at an encoder's resolution.

    Args:
        refs: where the images are.
        prepare: resizes and crops a decoded image to uint8 ``[3, height, width]``.
    """

    def __init__(self, refs: Sequence[ImageRef], prepare: Callable[[Image.Image], Tensor]) -> None:
        self._refs = refs
        self._prepare = prepare
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> Tensor:
        """uint8 ``[3, height, width]``."""
        found = self._kept.get(index)
        if found is None:
            found = self._prepare(decode(self._refs[index]))
            if self._bytes < KEEP_BYTES:
                self._kept[index] = found
                self._bytes += found.numel()
        return found


def shift(pixels: Tensor, most: int, seed: int) -> Tensor:
    """Move an image by up to ``most`` pixels each way, repeating its border; a function of the seed.

    Args:
        pixels: uint8 ``[3, height, width]``.
        most: largest shift in pixels.
        seed: chooses the shift.
    """
    if most == 0:
        return pixels
    generator = torch.Generator().manual_seed(seed)
    down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    height, width = pixels.shape[-2:]
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    return pixels[:, rows][:, :, columns]
