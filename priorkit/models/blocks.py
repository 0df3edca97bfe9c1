"""Where a model keeps its image tower and its transformer blocks."""

from __future__ import annotations

from typing import Any

from torch import nn

from priorkit.core.errors import InputError

IMAGE_TOWERS = ("vision_model", "image_model")
"""What transformers' dual encoders call their image tower."""


def find_image_tower(model: Any) -> tuple[str, Any]:
    """The image tower of a dual encoder, and what the encoder calls it.

    Raises:
        InputError: it is of a family that calls it something else.
    """
    for name in IMAGE_TOWERS:
        if (tower := getattr(model, name, None)) is not None:
            return name, tower
    raise InputError(f"{type(model).__name__} has no image tower that can be trained by itself")


def transformer_blocks(tower: nn.Module) -> tuple[str, nn.ModuleList]:
    """The blocks of a tower or a decoder, and their place in it: the longest list of modules.

    Raises:
        InputError: it has none.
    """
    found = [(name, part) for name, part in tower.named_modules() if isinstance(part, nn.ModuleList)]
    if not found:
        raise InputError(f"{type(tower).__name__} has no blocks that could be treated one by one")
    return max(found, key=lambda item: len(item[1]))
