"""Augmentation of images: drawn from a seed, so that the view at a position of the stream is reproducible."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from priorkit.core.boxes import Corners
from priorkit.core.options.settings import Settings, option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ASPECTS = (3 / 4, 4 / 3)
"""Narrowest and widest crop, width over height, as in torchvision's ``RandomResizedCrop``."""


class AugmentationSettings(Settings):
    """Random augmentation of training images."""

    group: ClassVar[str] = "augmentation"

    augment_crop: float = option(
        1.0,
        "Smallest share of an image's area in a random resized crop; 1 for no crop.",
        gt=0,
        le=1,
        advanced=True,
    )
    augment_shift: int = option(
        0,
        "Random shift of images, up to this many pixels.",
        ge=0,
        advanced=True,
    )
    augment_flip: bool = option(
        False,
        "Random horizontal flip; leave off where left and right or letters matter.",
        advanced=True,
    )
    augment_jitter: float = option(
        0.0,
        "Random change of brightness, contrast and saturation, up to this share.",
        ge=0,
        lt=1,
        advanced=True,
    )

    @property
    def augments(self) -> bool:
        """Whether anything is augmented."""
        return bool(self.augment_crop < 1 or self.augment_shift or self.augment_flip or self.augment_jitter)


@dataclass(frozen=True, slots=True)
class View:
    """One augmentation of an image, in units independent of the resolution.

    Attributes:
        crop: left, top, right and bottom as shares of the source; None for the prepared image.
        move: down and right, as shares of the side.
        mirrored: left and right swapped.
        colour: factors of brightness, contrast and saturation, applied in this order.
    """

    crop: tuple[float, float, float, float] | None = None
    move: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def place(self, box: Corners, prepared: Corners, size: tuple[int, int]) -> Corners:
        """Where a box of the source is in the view, as shares of its sides; what leaves it is beyond 0 or 1.

        Args:
            box: left, top, right and bottom as shares of the source.
            prepared: the part of the source that the prepared image shows, as shares; see
                :meth:`priorkit.models.vision.preprocessing.Preprocessing.window`.
            size: height and width in pixels of the view.
        """
        left, top, right, bottom = self.crop or prepared
        x1, x2 = ((x - left) / (right - left) for x in box[::2])
        y1, y2 = ((y - top) / (bottom - top) for y in box[1::2])
        # Shifts are by full pixels.
        down, across = (round(move * side) / side for move, side in zip(self.move, size, strict=True))
        x1, x2, y1, y2 = x1 - across, x2 - across, y1 - down, y2 - down
        return (1 - x2, y1, 1 - x1, y2) if self.mirrored else (x1, y1, x2, y2)

    def apply(self, pixels: Tensor) -> Tensor:
        """Move, mirror and change the color of pixels; the crop is applied when they are decoded.

        Args:
            pixels: uint8 ``[3, height, width]``.
        """
        height, width = pixels.shape[-2:]
        down, right = round(self.move[0] * height), round(self.move[1] * width)
        if down or right:
            pixels = moved(pixels, down, right)
        if self.mirrored:
            pixels = pixels.flip(-1)
        if self.colour != (1.0, 1.0, 1.0):
            from torchvision.transforms.v2 import functional

            adjust = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
            for change, factor in zip(adjust, self.colour, strict=True):
                pixels = change(pixels, factor)
        return pixels


def draw_view(settings: AugmentationSettings, seed: int, size: tuple[int, int], side: int) -> View:
    """The view of a seed.

    Args:
        settings: the ranges to draw from.
        seed: any integer; in training, a function of the run's seed and the position in the stream.
        size: width and height of the source image; the crop's shape depends on it.
        side: the side in pixels that the shift is meant for.
    """
    if not settings.augments:
        return View()
    import torch

    generator = torch.Generator().manual_seed(seed)
    most = settings.augment_shift
    # Drawn first and always, so that a run's shifts do not depend on its other augmentations.
    down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    draws: list[float] = torch.rand(4, generator=generator).tolist()
    span = settings.augment_jitter
    brightness, contrast, saturation = (1 + span * (2 * draw - 1) for draw in draws[1:])
    return View(
        crop=_crop(settings.augment_crop, size, generator) if settings.augment_crop < 1 else None,
        move=(down / side, right / side),
        mirrored=settings.augment_flip and draws[0] < 0.5,
        colour=(brightness, contrast, saturation) if span else (1.0, 1.0, 1.0),
    )


def _crop(
    smallest: float, size: tuple[int, int], generator: torch.Generator
) -> tuple[float, float, float, float]:
    """A box of a random area and aspect (Szegedy et al. 2015), ten tries, then the uncropped image."""
    import torch

    width, height = size
    low, high = math.log(ASPECTS[0]), math.log(ASPECTS[1])
    for _ in range(10):
        area, aspect, x, y = torch.rand(4, generator=generator).tolist()
        pixels = width * height * (smallest + (1 - smallest) * area)
        ratio = math.exp(low + (high - low) * aspect)
        wide, tall = math.sqrt(pixels * ratio) / width, math.sqrt(pixels / ratio) / height
        if wide <= 1 and tall <= 1:
            left, top = x * (1 - wide), y * (1 - tall)
            return left, top, left + wide, top + tall
    return 0.0, 0.0, 1.0, 1.0


def moved(pixels: Tensor, down: int, right: int) -> Tensor:
    """Move an image, repeating its border.

    Args:
        pixels: ``[3, height, width]``.
        down, right: by how many pixels the window goes down and right.
    """
    height, width = pixels.shape[-2:]
    return pixels.index_select(1, _window(height, down)).index_select(2, _window(width, right))


@lru_cache(maxsize=1024)
def _window(size: int, by: int) -> Tensor:
    """The source indices of a window moved by ``by``, the border repeated; cached, as there are many views."""
    import torch

    return (torch.arange(size) + by).clamp(0, size - 1)
