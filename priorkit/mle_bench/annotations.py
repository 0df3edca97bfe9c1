"""Images with masks (COCO instances, COCO panoptic, ADE20K), reduced to each category's share of the pixels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from priorkit.core.errors import InputError
from priorkit.core.input_files import paths_below
from priorkit.data.images.decoding import IMAGE_SUFFIXES, BrokenImageError, ImageRef, decode, path_within
from priorkit.data.io.rejects import Rejects
from priorkit.mle_bench.masks import Mask, decode_segmentation
from priorkit.models.folder import read_json

Layout = Literal["instances", "panoptic", "ade20k"]


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and the categories in it.

    Attributes:
        ref: the image.
        areas: for each category present, the share of the image's pixels its masks cover together.
    """

    ref: ImageRef
    areas: Mapping[str, float]


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


def find_annotations(
    folder: Path, annotations: Path | None, masks: Path | None, names: Path | None
) -> Annotations:
    """Find out how a data set is laid out.

    Args:
        folder: folder of the data set, or only of its images.
        annotations: COCO's JSON file; ``instances.json`` or ``panoptic.json`` in the folder where None.
        masks: the masks' folder; ``masks`` or ``annotations`` in the folder, or a folder named like the JSON
            file next to it, where None.
        names: the classes' names for ADE20K; ``names.txt`` or ``objectInfo150.txt`` where None.

    Raises:
        InputError: nothing of the kind is there.
    """
    if not folder.is_dir():
        raise InputError("expected a folder of annotated images", where=str(folder))
    images = folder / "images" if (folder / "images").is_dir() else folder
    file = annotations or _first(folder, ("instances.json", "panoptic.json"))
    if file is not None and file.suffix == ".json":
        rows = read_json(file).get("annotations")
        if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict):
            raise InputError("no annotations in it", where=str(file))
        if "segments_info" not in rows[0]:
            return Annotations("instances", images, file)
        found = masks or _first(file.parent, (file.stem, "panoptic", "masks"))
        if found is None:
            raise InputError(
                "the folder with the panoptic PNG files is missing",
                where=str(file),
                hint="name it with --masks",
            )
        return Annotations("panoptic", images, file, found)
    found = masks or _first(folder, ("masks", "annotations"))
    listing = names or _first(folder, ("names.txt", "objectInfo150.txt"))
    if found is None or listing is None:
        missing = "masks" if found is None else "a file with the names of the classes"
        raise InputError(
            f"no annotations here: neither instances.json nor panoptic.json, and {missing} missing",
            where=str(folder),
            hint="see --annotations, --masks and --names",
        )
    return Annotations("ade20k", images, listing, found)


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).exists()), None)


def read_annotated(found: Annotations, rejects: Rejects) -> tuple[list[AnnotatedImage], tuple[str, ...]]:
    """All usable images with their categories' areas, in the order of the file, and the vocabulary.

    Images without annotations are skipped; broken ones go to ``rejects``.

    Raises:
        InputError: the annotation file is broken, too many images are, or none is left.
    """
    readers = {"instances": _read_instances, "panoptic": _read_panoptic, "ade20k": _read_ade20k}
    images: list[AnnotatedImage] = []
    vocabulary, rows = readers[found.layout](found)
    for number, (name, path, areas) in enumerate(rows, start=1):
        try:
            ref = ImageRef(name, path if isinstance(path, Path) else path_within(found.images, name))
            size = decode(ref).size
            shares = areas(size)
        except (BrokenImageError, ValueError, KeyError, TypeError, OSError) as error:
            rejects.add(str(found.file), number, f"{name}: {error}")
            continue
        rejects.accept()
        if shares:
            images.append(AnnotatedImage(ref, shares))
    rejects.raise_if_over_limit()
    if not images:
        raise InputError("no annotated image that can be used", where=str(found.file))
    return images, vocabulary


_Rows = Iterator[tuple[str, Path | None, Any]]


def _read_instances(found: Annotations) -> tuple[tuple[str, ...], _Rows]:
    document = read_json(found.file)
    names = _categories(document, found.file)
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in document["annotations"]:
        by_image[row.get("image_id")].append(row)

    def areas(annotated: list[dict[str, Any]], size: tuple[int, int]) -> dict[str, float]:
        width, height = size
        union: dict[str, Mask] = {}
        for row in annotated:
            name = _category(names, row)
            mask = decode_segmentation(row.get("segmentation"), height, width)
            union[name] = union[name] | mask if name in union else mask
        return {name: float(mask.mean()) for name, mask in union.items() if mask.any()}

    def rows() -> _Rows:
        for name, identifier in _images(document, found.file):
            annotated = by_image.get(identifier, [])
            yield name, None, lambda size, annotated=annotated: areas(annotated, size)

    return tuple(dict.fromkeys(names.values())), rows()


def _read_panoptic(found: Annotations) -> tuple[tuple[str, ...], _Rows]:
    document = read_json(found.file)
    names = {key: _PANOPTIC_SUFFIX.sub("", name) for key, name in _categories(document, found.file).items()}
    by_image = {row.get("image_id"): row for row in document["annotations"]}

    def areas(row: dict[str, Any], size: tuple[int, int]) -> dict[str, float]:
        colours = _png(path_within(_folder(found), str(row["file_name"])), size).astype(np.int64)
        if colours.ndim != 3:
            raise ValueError("a panoptic PNG has three channels")
        segments = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
        category = {int(part["id"]): _category(names, part) for part in row["segments_info"]}
        return _shares(segments, category)

    def rows() -> _Rows:
        for name, identifier in _images(document, found.file):
            row = by_image.get(identifier, {"segments_info": [], "file_name": ""})
            yield name, None, lambda size, row=row: areas(row, size) if row["segments_info"] else {}

    return tuple(dict.fromkeys(names.values())), rows()


_PANOPTIC_SUFFIX = re.compile(r"(-merged|-other|-stuff)+$")


def _read_ade20k(found: Annotations) -> tuple[tuple[str, ...], _Rows]:
    names = read_class_names(found.file)
    # Without a folder 'images' the masks may be among the images' folders.
    masks = _folder(found).resolve()
    files = sorted(
        file
        for file in paths_below(found.images)
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.resolve().is_relative_to(masks)
    )

    def areas(name: str, size: tuple[int, int]) -> dict[str, float]:
        mask = _png(path_within(_folder(found), str(Path(name).with_suffix(".png"))), size)
        if mask.ndim != 2:
            raise ValueError("a mask of class numbers has one channel")
        return _shares(mask.astype(np.int64), names)

    def rows() -> _Rows:
        for file in files:
            name = file.relative_to(found.images).as_posix()
            yield name, file, lambda size, name=name: areas(name, size)

    return tuple(dict.fromkeys(names.values())), rows()


def read_class_names(path: Path) -> dict[int, str]:
    """Names of classes by number: a name per line from 1 on, or number and name apart by tabs.

    Of several names on a line (``sofa, couch`` or ``sofa;couch``) the first is taken; 0 is unlabelled.

    Raises:
        InputError: the file holds no names.
    """
    try:
        lines = [
            line.split("\t") for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        ]
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    numbered = [fields for fields in lines if len(fields) > 1 and fields[0].strip().isdigit()]
    pairs = (
        [(int(fields[0]), fields[-1]) for fields in numbered]
        if numbered
        else [(number, fields[0]) for number, fields in enumerate(lines, start=1)]
    )
    if not pairs:
        raise InputError("the file holds no names", where=str(path))
    return {number: re.split(r"[,;]", name)[0].strip() for number, name in pairs}


def _shares(numbers: Any, names: Mapping[int, str]) -> dict[str, float]:
    """Share of the pixels by category name; number 0 is unlabelled."""
    shares: dict[str, float] = {}
    for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
        if number == 0:
            continue
        if int(number) not in names:
            raise ValueError(f"the mask holds the number {number}, which has no category")
        name = names[int(number)]
        shares[name] = shares.get(name, 0.0) + float(count) / numbers.size
    return shares


def _png(path: Path, size: tuple[int, int]) -> Any:
    from PIL import Image

    if not path.is_file():
        raise ValueError(f"no such mask: {path.name}")
    with Image.open(path) as image:
        if image.size != size:
            raise ValueError(f"the mask {path.name} is {image.size}, the image {size}")
        return np.asarray(image)


def _folder(found: Annotations) -> Path:
    if found.masks is None:
        raise InputError("the folder with the masks is missing", hint="name it with --masks")
    return found.masks


def _categories(document: dict[str, Any], file: Path) -> dict[Any, str]:
    rows = document.get("categories")
    if not isinstance(rows, list) or not rows:
        raise InputError("no categories in it", where=str(file))
    try:
        return {row["id"]: str(row["name"]).strip() for row in rows}
    except (KeyError, TypeError):
        raise InputError("a category needs id and name", where=str(file)) from None


def _category(names: Mapping[Any, str], row: dict[str, Any]) -> str:
    if row.get("category_id") not in names:
        raise ValueError(f"no category {row.get('category_id')!r}")
    return names[row["category_id"]]


def _images(document: dict[str, Any], file: Path) -> list[tuple[str, Any]]:
    rows = document.get("images")
    if not isinstance(rows, list) or not rows:
        raise InputError("no images in it", where=str(file))
    try:
        found = [(str(row["file_name"]), row["id"]) for row in rows]
    except (KeyError, TypeError):
        raise InputError("an image needs id and file_name", where=str(file)) from None
    if len({name for name, _ in found}) < len(found):
        raise InputError("two images have the same file_name", where=str(file))
    return found
