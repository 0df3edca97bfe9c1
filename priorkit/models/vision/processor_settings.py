"""Settings of image processors, checked in their files: transformers takes any value and fails at the first image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.models.folder import read_json

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that hold the settings of an image processor: of its own, or of a processor under ``image_processor``."""

_CHANNELS = 3
_FILTERS = range(6)
"""Pillow's resampling filters."""

_USED_BY = {
    "size": "do_resize",
    "resample": "do_resize",
    "crop_size": "do_center_crop",
    "rescale_factor": "do_rescale",
    "image_mean": "do_normalize",
    "image_std": "do_normalize",
}
"""Settings that have no effect where another is false."""


def check_processor(folder: Path) -> None:
    """Check the values of a model's image processor that are in its files.

    Raises:
        InputError: sizes, means, deviations or factors that no image can be prepared with, each by file and key.
    """
    problems = Problems(InputError)
    for path in (folder / name for name in PROCESSOR_FILES):
        if not path.is_file():
            continue
        with problems.collecting():
            content = read_json(path)
            for key, wrong in _wrong_values(_mapping(content.get("image_processor")) or content):
                problems.add(wrong, where=f"{path}: {key}")
    problems.raise_if_any()


def _wrong_values(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each key with a wrong value, and what is wrong with it."""
    found: list[tuple[str, str]] = []
    for key, (expected, is_right) in _RULES.items():
        value = settings.get(key)
        unused = settings.get(_USED_BY.get(key, "")) is False
        # transformers takes null and false for settings that are not there.
        if value is None or value is False or unused or is_right(value):
            continue
        found.append((key, f"expected {expected}, got {str(value)[:60]!r}" if isinstance(value, str)
                      else f"expected {expected}, got {str(value)[:60]}"))  # fmt: skip
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _positive(value: Any) -> bool:
    return _finite(value) and value > 0


def _count(value: Any) -> bool:
    return _positive(value) and float(value).is_integer()


def _per_channel(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def is_right(value: Any) -> bool:
        values = cast("list[Any]", value) if isinstance(value, list) else [value] * _CHANNELS
        return len(values) == _CHANNELS and all(map(check, values))

    return is_right


def _size(value: Any) -> bool:
    if isinstance(value, dict):
        sides = [side for side in cast("dict[str, Any]", value).values() if side is not None]
        return bool(sides) and all(map(_count, sides))
    if isinstance(value, list):
        return len(cast("list[Any]", value)) == 2 and all(map(_count, cast("list[Any]", value)))
    return _count(value)


def _filter(value: Any) -> bool:
    return _finite(value) and value in _FILTERS


def _truth(value: Any) -> bool:
    return isinstance(value, bool) or value in (0, 1)


_LENGTHS = "a length in pixels above 0, or several by name such as height and width"
_RULES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "size": (_LENGTHS, _size),
    "crop_size": (_LENGTHS, _size),
    "resample": ("the number of a filter of Pillow's, 0 to 5", _filter),
    "rescale_factor": ("a number above 0", _positive),
    "image_mean": ("three finite numbers, one per color", _per_channel(_finite)),
    "image_std": ("three numbers above 0, one per color", _per_channel(_positive)),
    "patch_size": (_LENGTHS, _size),
    "max_num_patches": ("a number above 0", _count),
    **dict.fromkeys(
        ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb", "do_pad"),
        ("true or false", _truth),
    ),
}
"""What is expected of each setting, and whether a value is that."""
