"""Whether boxes fit what an encoder is shown, told from the image processor's file.

Boxes are shares of the whole image. Where the encoder sees the image's middle alone, or a square with borders
around it, a box says where a thing is in the image and not where it is seen, and nothing else tells the model
how the two go together.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from priorkit.models.folder import read_json

Misfit = Literal["nothing", "uneven", "every"]
"""For which images boxes do not fit: none, those that are not square, or all."""

_REMEDY = "squeeze images into a square instead: align --resize squash"

_WARPED = 384
"""From this size on ConvNeXT's processor squeezes images into a square and crops none."""


def misfit_of(folder: Path) -> Misfit:
    """For which images a model's image processor leaves boxes behind; for none where there is no processor.

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
        return "uneven"
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


def misfit_fact(misfit: Misfit) -> list[tuple[str, str]]:
    """A row for the plan of a step that reads boxes; none where all fit."""
    if misfit == "nothing":
        return []
    which = "all images are" if misfit == "every" else "images that are not square are"
    return [("boxes", f"do not fit what is seen where images are cropped or padded: {which}; {_REMEDY}")]


def misfit_warning(misfit: Misfit, sizes: Mapping[Any, tuple[int, int]]) -> str:
    """What to warn of, given width and height of the images with boxes; empty where all is well."""
    hit = sum(misfit == "every" or width != height for width, height in sizes.values())
    if misfit == "nothing" or not hit:
        return ""
    return (
        f"{hit} of {len(sizes)} images with boxes are cropped or padded for the encoder, and boxes over the "
        f"whole image do not fit what it sees; {_REMEDY}"
    )
