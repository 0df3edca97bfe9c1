"""Whether boxes match the image that an encoder is given, from the image processor's file.

Boxes are shares of the full image's width and height. If the encoder gets a center crop, or a square with borders
around the image, a box does not say where the object is in its input, and the model cannot know the offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from priorkit.models.folder import read_json

Misaligned = Literal["none", "non-square", "all"]
"""The images whose boxes do not match the encoder's input."""

_REMEDY = "to keep boxes aligned, use align --resize squash"

_WARPED = 384
"""From this size on, ConvNeXT's processor squeezes images into a square and crops none."""


def misaligned_images(folder: Path) -> Misaligned:
    """The images that a model's image processor crops or pads; none if there is no processor.

    Raises:
        InputError: its file is no JSON object.
    """
    settings = _image_processor(folder)
    size, crop = settings.get("size"), settings.get("crop_size")
    edge = size if isinstance(size, int) else _mapping(size).get("shortest_edge")
    if "crop_pct" in settings and edge:
        if edge >= _WARPED:
            return "none"
        return "non-square" if settings["crop_pct"] in (None, 1) else "all"
    if settings.get("do_pad") and str(settings.get("image_processor_type", "")).startswith("Llava"):
        return "non-square"
    if settings.get("do_center_crop") is False or not (edge or settings.get("do_center_crop")):
        return "none"
    sides = ("height", "width")
    cropped = [crop] * 2 if isinstance(crop, int) else [_mapping(crop).get(side) for side in sides]
    resized = [edge] * 2 if edge else [_mapping(size).get(side) for side in sides]
    if any(before and after and after < before for before, after in zip(resized, cropped, strict=True)):
        return "all"
    return "non-square" if edge else "none"


def _image_processor(folder: Path) -> Mapping[str, Any]:
    """An image processor's settings, from the file of the processor or of the image processor."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            content = read_json(folder / name)
            settings = content if name.startswith("pre") else content.get("image_processor")
            if isinstance(settings, dict):
                return settings
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def misalignment_fact(misaligned: Misaligned) -> list[tuple[str, str]]:
    """A row for the plan of a step that reads boxes; empty if all boxes match."""
    if misaligned == "none":
        return []
    return [
        (
            "boxes",
            f"are relative to the full image, but {misaligned} images are cropped or padded for the encoder; {_REMEDY}",
        )
    ]


def misalignment_warning(misaligned: Misaligned, sizes: Iterable[tuple[int, int]]) -> str:
    """A warning for images with boxes; empty if all boxes match.

    Args:
        misaligned: from :func:`misaligned_images`.
        sizes: width and height in pixels of each image with boxes.
    """
    if misaligned == "none":
        return ""
    count = total = 0
    for width, height in sizes:
        total += 1
        count += misaligned == "all" or width != height
    if not count:
        return ""
    return (
        f"{count} of {total} images with boxes are cropped or padded for the encoder, so their boxes, "
        f"relative to the full image, do not match what it sees; {_REMEDY}"
    )
