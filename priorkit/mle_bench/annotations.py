"""Images with masks (COCO instances, COCO panoptic, ADE20K), reduced to how much of the image each category covers and where."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.input_files import list_files
from priorkit.data.images.decoding import BrokenImageError, ImageRef, path_within
from priorkit.data.images.masks import Mask
from priorkit.mle_bench.class_names import NAMES_FILES
from priorkit.models.folder import read_json

Layout = Literal["instances", "panoptic", "ade20k"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How much of an image a category covers, and where.

    Attributes:
        area: the share of the image's pixels that its masks cover together.
        center_distance: distance of the centroid of these pixels from the image's center, as a share of half the
            image's diagonal: 0 at the center, 1 at a corner. The same however the image is rotated or mirrored.
    """

    area: float
    center_distance: float


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and the categories in it.

    Attributes:
        ref: the image.
        measured: the categories with a mask.
        unmeasured: further categories present, whose masks are empty or missing.
        row: its number among all images, from 1.
    """

    ref: ImageRef
    measured: Mapping[str, Placement]
    unmeasured: tuple[str, ...] = ()
    row: int = 0


@dataclass(frozen=True, slots=True)
class Coverage:
    """The categories in an image.

    Attributes:
        measured: as in :class:`AnnotatedImage`.
        unmeasured: further categories present, whose masks are empty or missing, each with an annotation of it.
    """

    measured: Mapping[str, Placement]
    unmeasured: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size of an image's file.

    Attributes:
        upright: width and height in pixels, after EXIF rotation.
        rotated: whether EXIF rotates it; annotations may be of the pixels as they are stored.
    """

    upright: tuple[int, int]
    rotated: bool = False

    def fits(self, size: tuple[int, int]) -> bool:
        """Whether a mask of this size shows the same shares: the same shape, at any resolution."""
        width, height = self.upright
        return _proportional(size, self.upright) or (self.rotated and _proportional(size, (height, width)))

    def __str__(self) -> str:
        return f"{self.upright[0]} x {self.upright[1]}"


def _proportional(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are one shape, when the sides of the smaller are rounded to pixels."""
    small, large = sorted((one, other))
    scale = max(large) / max(small)
    return all(
        abs(side * scale - other_side) <= max(scale, 1) for side, other_side in zip(small, large, strict=True)
    )


CoverageOf = Callable[[ImageSize], Coverage]
"""Measures the categories of one image; :class:`ValueError` says what is wrong with its annotations."""


@dataclass(frozen=True)
class Annotations:
    """Files of an annotated data set.

    Attributes:
        layout: format of the masks.
        images: the folder with the images.
        file: the JSON file; for ADE20K the file with the names of the classes.
        masks: the folder with the masks' PNG files; None for instances.
    """

    layout: Layout
    images: Path
    file: Path
    masks: Path | None = None

    @property
    def mask_folder(self) -> Path:
        """The folder with the masks.

        Raises:
            InputError: there is none.
        """
        if self.masks is None:
            raise InputError("the folder with the masks is missing", hint="name it with --masks")
        return self.masks

    def image_path(self, name: str) -> Path:
        """The file of an image.

        Raises:
            BrokenImageError: its path leaves the folder, or it is none of the folder's files.
        """
        return _listed(self.images, name, self._image_names)

    def mask_path(self, name: str) -> Path:
        """The PNG file of a mask.

        Raises:
            BrokenImageError: its path leaves the folder, or it is none of the folder's files.
            InputError: there is no folder of masks.
        """
        return _listed(self.mask_folder, name, self._mask_names)

    @cached_property
    def _image_names(self) -> frozenset[str]:
        return frozenset(list_files(self.images).names)

    @cached_property
    def _mask_names(self) -> frozenset[str]:
        return frozenset(list_files(self.mask_folder).names)


def _listed(folder: Path, name: str, names: Collection[str]) -> Path:
    """A path below a folder; a file that the list of an input's files leaves out, such as a hidden one, is refused."""
    path = path_within(folder, name)
    if path.is_file() and path.relative_to(folder.absolute()).as_posix() not in names:
        raise BrokenImageError(f"hidden, or left behind by a program: {name}")
    return path


def masks_beside(file: Path) -> Path | None:
    """The folder of masks next to a COCO panoptic file; None next to one of instances."""
    folder = _first(file.parent, (file.stem, "panoptic", "masks"))
    if folder is None or not folder.is_dir() or file.stat().st_size == 0:
        return None
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return folder if content.find(b'"segments_info"') >= 0 else None


def find_annotations(
    folder: Path, annotations: Path | None, masks: Path | None, names: Path | None
) -> Annotations:
    """Find out how a data set is laid out.

    Args:
        folder: folder of the data set, or only of its images.
        annotations: COCO's JSON file; ``instances.json`` or ``panoptic.json`` in the folder where None.
        masks: the masks' folder; ``masks`` or ``annotations`` in the folder, or a folder named like the JSON
            file next to it, where None.
        names: the classes' names for ADE20K; one of ``NAMES_FILES`` in the folder where None.

    Raises:
        InputError: nothing of the kind is there.
    """
    if not folder.is_dir():
        raise InputError("expected a folder of annotated images", where=str(folder))
    images = folder / "images" if (folder / "images").is_dir() else folder
    file = annotations or _first(folder, ("instances.json", "panoptic.json"))
    if file is not None:
        rows = read_json(file).get("annotations")
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            raise InputError("no annotations in it", where=str(file))
        if "segments_info" not in rows[0]:
            return Annotations("instances", images, file)
        mask_folder = masks or _first(file.parent, (file.stem, "panoptic", "masks"))
        if mask_folder is None:
            raise InputError(
                "the folder with the panoptic PNG files is missing",
                where=str(file),
                hint="name it with --masks",
            )
        return Annotations("panoptic", images, file, mask_folder)
    mask_folder = masks or _first(folder, ("masks", "annotations"))
    listing = names or _first(folder, NAMES_FILES)
    if mask_folder is None or listing is None:
        missing = "masks" if mask_folder is None else "a file with the names of the classes"
        raise InputError(
            f"no annotations here: neither instances.json nor panoptic.json, and {missing} missing",
            where=str(folder),
            hint="see --annotations, --masks and --names",
        )
    return Annotations("ade20k", images, listing, mask_folder)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def placement_of(mask: Mask) -> Placement | None:
    """Where a mask ``[height, width]`` is; None where it is empty."""
    counts = mask.sum(axis=0), mask.sum(axis=1)
    columns, rows = (float(count @ np.arange(count.size)) for count in counts)
    pixels = int(counts[0].sum())
    return _placement(pixels, columns, rows, mask.shape) if pixels else None


def placements_of(numbers: NDArray[np.int64], names: Mapping[int, str]) -> dict[str, Placement]:
    """Where each category is, from the number of every pixel ``[height, width]``; number 0 is unlabeled.

    Raises:
        ValueError: a number without a category.
    """
    height, width = numbers.shape
    present, index = np.unique(numbers, return_inverse=True)
    index = index.reshape(-1)
    row, column = np.divmod(np.arange(index.size), width)
    # [present, 3]: pixels, and the sums of their columns and rows; integers, so exact.
    sums = np.stack([np.bincount(index, weights) for weights in (None, column, row)], axis=1)
    of_name: dict[str, NDArray[np.float64]] = {}
    for number, values in zip(present.tolist(), sums, strict=True):
        if number == 0:
            continue
        if number not in names:
            raise ValueError(f"the mask holds the number {number}, which has no category")
        name = names[number]
        of_name[name] = of_name[name] + values if name in of_name else values
    return {
        name: _placement(int(pixels), columns, rows, (height, width))
        for name, (pixels, columns, rows) in of_name.items()
    }


def _placement(pixels: int, columns: float, rows: float, shape: tuple[int, ...]) -> Placement:
    """From the number of pixels and the sums of their columns and rows, counted from 0."""
    height, width = shape
    # A pixel's center is half a pixel from its corner.
    right, down = columns / pixels + 0.5 - width / 2, rows / pixels + 0.5 - height / 2
    return Placement(pixels / (height * width), 2 * math.hypot(right, down) / math.hypot(height, width))


def read_mask(path: Path, size: ImageSize) -> NDArray[Any]:
    """A mask's pixels as stored.

    Raises:
        ValueError: there is no such file, or its shape is not the image's.
    """
    from PIL import Image

    if not path.is_file():
        raise ValueError(f"no such mask: {path.name}")
    with Image.open(path) as image:
        if not size.fits(image.size):
            raise ValueError(f"the mask {path.name} is {image.size[0]} x {image.size[1]}, the image {size}")
        return np.asarray(image)
