"""Where a model keeps its image tower and its transformer blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from priorkit.core.errors import InputError

IMAGE_TOWERS = ("vision_model", "image_model")
"""What transformers' dual encoders call their image tower."""


def find_image_tower(model: Any) -> tuple[str, Any]:
    """The attribute name and the image tower of a dual encoder.

    Raises:
        InputError: its family names the image tower differently.
    """
    for name in IMAGE_TOWERS:
        if (tower := getattr(model, name, None)) is not None:
            return name, tower
    raise InputError(f"{type(model).__name__} has no image tower of a known name")


def transformer_blocks(tower: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the blocks of a tower or decoder: its longest ``ModuleList``.

    Raises:
        InputError: it has none.
    """
    lists = [(name, part) for name, part in tower.named_modules() if isinstance(part, nn.ModuleList)]
    if not lists:
        raise InputError(f"{type(tower).__name__} has no transformer blocks")
    return max(lists, key=lambda item: len(item[1]))
