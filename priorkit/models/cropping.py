"""What an image processor cuts off an image, told from its file.

Boxes are shares of the whole image. Where the encoder is shown the middle alone, a box says where a thing is in
the image and not where it is seen, and nothing else tells the model which part that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from priorkit.models.folder import read_json

Cropped = Literal["nothing", "uneven", "every"]
"""Which images lose their edges: none, those that are not square, or all."""

REMEDY = "make the model anew with align --resize squash"

_WARPED = 384
"""From this size on ConvNeXT's processor squeezes images into a square and crops none."""


def cropped_of(folder: Path) -> Cropped:
    """Which images a model's image processor crops; a folder without one crops nothing.

    Raises:
        InputError: its file is no JSON object.
    """
    known = _image_processor(folder)
    size, crop = known.get("size"), known.get("crop_size")
    edge = size if isinstance(size, int) else _mapping(size).get("shortest_edge")
    if "crop_pct" in known and edge:
        if edge >= _WARPED:
            return "nothing"
        return "uneven" if known["crop_pct"] in (None, 1) else "every"
    if known.get("do_pad") and str(known.get("image_processor_type", "")).startswith("Llava"):
        return "nothing"  # Padded to a square before all else.
    if known.get("do_center_crop") is False or not (edge or known.get("do_center_crop")):
        return "nothing"
    kept = [crop] * 2 if isinstance(crop, int) else [_mapping(crop).get(side) for side in ("height", "width")]
    made = [edge] * 2 if edge else [_mapping(size).get(side) for side in ("height", "width")]
    if any(have and keep and keep < have for have, keep in zip(made, kept, strict=True)):
        return "every"
    return "uneven" if edge else "nothing"


def _image_processor(folder: Path) -> Mapping[str, Any]:
    """An image processor's settings, from the processor's file or from its own."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            known = read_json(folder / name)
            own = known if name.startswith("pre") else known.get("image_processor")
            if isinstance(own, dict):
                return own
    return {}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def crop_fact(cropped: Cropped) -> list[tuple[str, str]]:
    """A row for the plan of a step that reads boxes; none where nothing is cropped."""
    if cropped == "nothing":
        return []
    which = "every image is cropped" if cropped == "every" else "images that are not square are cropped"
    return [("boxes", f"do not fit what is seen: {which} (remedy: {REMEDY})")]


def crop_warning(cropped: Cropped, sizes: Mapping[Any, tuple[int, int]]) -> str:
    """What to warn of, given the sizes of the images with boxes; empty where all is well."""
    hit = sum(cropped == "every" or width != height for width, height in sizes.values())
    if cropped == "nothing" or not hit:
        return ""
    return (
        f"the encoder's preprocessing crops {hit} of {len(sizes)} images with boxes to their middle, and a box "
        f"is over the whole image: it does not fit what is seen; {REMEDY}"
    )
