"""Reading annotated images: how much of them each category covers and where, with broken images counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from priorkit.core.errors import InputError
from priorkit.core.input_files import paths_below
from priorkit.data.images.decoding import (
    IMAGE_SUFFIXES,
    BrokenImageError,
    ImageRef,
    decode_with_kinds,
    upright_size,
)
from priorkit.data.io.rejects import Rejects
from priorkit.mle_bench.annotations import (
    AnnotatedImage,
    Annotations,
    Coverage,
    CoverageOf,
    ImageSize,
    placements_of,
    read_mask,
)
from priorkit.mle_bench.class_names import read_class_names
from priorkit.mle_bench.coco import read_coco

logger = logging.getLogger(__name__)


def read_annotated(source: Annotations, rejects: Rejects) -> tuple[list[AnnotatedImage], tuple[str, ...]]:
    """All usable images with the placement of their categories, in the order of the file, and the vocabulary.

    Images without a measured category are skipped; broken ones go to ``rejects``.

    Raises:
        InputError: the annotation file is broken, too many images are, or none is left.
    """
    images: list[AnnotatedImage] = []
    vocabulary, rows = _read_ade20k(source) if source.layout == "ade20k" else read_coco(source)
    without_mask: list[str] = []
    number = 0
    for number, (name, path, coverage_of) in enumerate(rows, start=1):
        try:
            ref = ImageRef(name, path or source.image_path(name))
            _, kinds = decode_with_kinds(ref)
            coverage = coverage_of(ImageSize(upright_size(ref), "rotated" in kinds))
        except (BrokenImageError, ValueError, KeyError, TypeError, OSError) as error:
            rejects.add(str(source.file), number, f"{name}: {error}")
            continue
        rejects.accept()
        without_mask += [f"{label} ({category}) of {name}" for category, label in coverage.unmeasured.items()]
        if coverage.measured:
            images.append(AnnotatedImage(ref, coverage.measured, tuple(coverage.unmeasured), number))
    rejects.raise_if_over_limit()
    empty = (
        f"the mask is empty or missing in {len(without_mask)}, such as {without_mask[0]}"
        if without_mask
        else ""
    )
    if not images:
        raise InputError(
            f"none of the {number} images has an annotated object with a mask"
            + (f"; {empty}" if empty else ""),
            where=str(source.file),
        )
    if empty:
        logger.warning(f"{source.file}: {empty}; these categories are not asked about in their images")
    return images, vocabulary


def _read_ade20k(source: Annotations) -> tuple[tuple[str, ...], Iterator[tuple[str, Path, CoverageOf]]]:
    names = read_class_names(source.file)
    # Without a folder 'images' the masks may lie among the images' folders.
    masks = source.mask_folder.resolve()
    files = sorted(
        file
        for file in paths_below(source.images)
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.resolve().is_relative_to(masks)
    )

    def coverage(name: str, size: ImageSize) -> Coverage:
        mask = read_mask(source.mask_path(str(Path(name).with_suffix(".png"))), size)
        if mask.ndim != 2:
            raise ValueError("a mask of class numbers has one channel")
        return Coverage(placements_of(mask.astype(np.int64), names))

    def rows() -> Iterator[tuple[str, Path, CoverageOf]]:
        for file in files:
            name = file.relative_to(source.images).as_posix()
            yield name, file, lambda size, name=name: coverage(name, size)

    return tuple(dict.fromkeys(names.values())), rows()
