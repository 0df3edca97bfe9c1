"""Regions in a view of their image: where they are, and which patches show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from priorkit.core.boxes import FULL_IMAGE, Corners
from priorkit.data.images.augmentation import View
from priorkit.data.images.masks import Mask
from priorkit.data.images.regions import ImageRegion

COVERED = 0.5
"""The share of a patch that a mask must cover."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """The patches of prepared images.

    Attributes:
        height, width: of a prepared image in pixels; the patches may leave a border at the bottom and right.
        side: of a patch in pixels.
    """

    height: int
    width: int
    side: int

    @property
    def rows(self) -> int:
        """Patches from top to bottom."""
        return self.height // self.side

    @property
    def columns(self) -> int:
        """Patches from left to right."""
        return self.width // self.side

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a prepared image in pixels."""
        return self.height, self.width

    def __len__(self) -> int:
        return self.rows * self.columns

    def edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges of the patches as shares of the width, ``[columns + 1]``, and of the height, ``[rows + 1]``."""
        return (
            np.linspace(0, self.columns * self.side / self.width, self.columns + 1),
            np.linspace(0, self.rows * self.side / self.height, self.rows + 1),
        )

    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centers of the patches, x and y as shares, ``[patches]`` each, row by row."""
        return _centers(self)

    def inside(self, box: Corners) -> NDArray[np.bool_]:
        """The patches whose center lies in a box, bool ``[patches]``."""
        x, y = self.centers()
        # Edges often fall on centers; rounding must not decide.
        x1, y1, x2, y2 = (edge - _ROUNDING for edge in box)
        return (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)

    def nearest(self, box: Corners) -> int:
        """The patch whose center is nearest to that of a box, by shares of the sides."""
        x, y = self.centers()
        x1, y1, x2, y2 = box
        return int(np.argmin((x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2))


@lru_cache(maxsize=16)  # asked for every region
def _centers(grid: PatchGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = ((edges[1:] + edges[:-1]) / 2 for edges in grid.edges())
    centers = np.tile(x, grid.rows), np.repeat(y, grid.columns)
    for array in centers:
        array.flags.writeable = False
    return centers


@dataclass(frozen=True, slots=True)
class VisibleRegion:
    """A region in a view.

    Attributes:
        number: its place among the regions of the image.
        box: its visible part, as shares of the view.
        patches: those that show it, at least one, row by row.
    """

    number: int
    box: Corners
    patches: tuple[int, ...]


def visible_regions(
    regions: Sequence[ImageRegion], view: View, prepared: Corners, grid: PatchGrid
) -> list[VisibleRegion]:
    """The regions whose box has its center in the view, with their boxes cut to it.

    A region whose center has left the view is not part of it (the rule of SSD, Liu et al. 2016, section 2.2).
    Of a region with a box, the patches are those whose center lies in it; with a mask, those that it covers
    by half or more. Where there is none, it is the patch that the mask covers most, or else the nearest one.

    Args:
        regions: of the source image.
        view: the augmentation.
        prepared: the part of the source that the prepared image shows.
        grid: the patches.
    """
    found: list[VisibleRegion] = []
    for number, region in enumerate(regions):
        placed = view.place(region.box, prepared, grid.size)
        x1, y1, x2, y2 = placed
        if not (0 <= (x1 + x2) / 2 < 1 and 0 <= (y1 + y2) / 2 < 1):
            continue
        box = max(x1, 0.0), max(y1, 0.0), min(x2, 1.0), min(y2, 1.0)
        if region.mask is None:
            patches = np.flatnonzero(grid.inside(placed))
        else:
            shares = coverage(region.mask.decode(), view, prepared, grid)
            patches = np.flatnonzero(shares >= COVERED - _ROUNDING)
            if not len(patches) and shares.max() > 0:
                patches = np.array([shares.argmax()])
        chosen = patches.tolist() or [grid.nearest(box)]
        found.append(VisibleRegion(number, box, tuple(chosen)))
    return found


def coverage(mask: Mask, view: View, prepared: Corners, grid: PatchGrid) -> NDArray[np.float64]:
    """The share of each patch of a view that a mask of the source covers, exactly, float64 ``[patches]``.

    Computed from the mask's sums over rectangles, at the patches' edges in the source; what a view shows
    beyond the source is not covered.
    """
    height, width = mask.shape
    # The affine map from source to view, inverted at the patches' edges.
    left, top, right, bottom = view.place(FULL_IMAGE, prepared, grid.size)
    across, down = grid.edges()
    if view.mirrored:
        left, right = right, left
    x, y = (across - left) / (right - left) * width, (down - top) / (bottom - top) * height
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    at = _interpolated(_interpolated(sums, np.clip(y, 0, height)).T, np.clip(x, 0, width)).T
    covered = np.abs(at[1:, 1:] - at[1:, :-1] - at[:-1, 1:] + at[:-1, :-1])
    area = np.abs(np.outer(np.diff(y), np.diff(x)))
    return (covered / area).ravel()


def _interpolated(values: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at fractional places, linearly interpolated."""
    low = np.minimum(places.astype(np.int64), len(values) - 2)
    share = (places - low)[:, None]
    return values[low] * (1 - share) + values[low + 1] * share
