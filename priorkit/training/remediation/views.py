"""Which view of an image is trained on at which position of the stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from priorkit.core.process.seeds import stream_seed
from priorkit.data.images.augmentation import AugmentationSettings, View
from priorkit.data.images.pixels import Pixels

_FIXED_VIEWS = 1 << 41
"""Offset of the seeds of fixed views, beyond any position of a stream."""


@dataclass(frozen=True)
class ViewSchedule:
    """The augmented views of a data set's images.

    Attributes:
        pixels: the images at the student's resolution.
        augmentation: how strongly views are augmented.
        seed: the run's seed.
        fixed: number of fixed views per image, used in turn epoch by epoch; 0 for a new view every time.
    """

    pixels: Pixels
    augmentation: AugmentationSettings
    seed: int
    fixed: int

    def augmentation_values(self) -> dict[str, Any]:
        """The augmentation's settings by name, for the key of a cache."""
        return self.augmentation.model_dump(include=set(AugmentationSettings.model_fields))

    def view_number(self, position: int) -> int:
        """The number of the fixed view due at a position of the stream; 0 where views are not fixed."""
        return position // len(self.pixels) % self.fixed if self.fixed else 0

    def view_at(self, index: int, position: int) -> View:
        """The view of an image at a position of the stream."""
        if self.fixed:
            return self.fixed_view(index, self.view_number(position))
        return self.pixels.draw(index, self.augmentation, stream_seed(self.seed, position))

    def fixed_view(self, index: int, number: int) -> View:
        """One of the fixed views of an image."""
        position = _FIXED_VIEWS + index * self.fixed + number
        return self.pixels.draw(index, self.augmentation, stream_seed(self.seed, position))
