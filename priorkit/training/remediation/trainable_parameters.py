"""Freezing an encoder but for what trains; LoRA put on its image tower and folded in again."""

from __future__ import annotations

from typing import Any

from torch import nn

from priorkit.core.errors import InputError
from priorkit.training.remediation.settings import TrainedParts

IMAGE_TOWERS = ("vision_model", "image_model")
IMAGE_PROJECTIONS = ("visual_projection", "vision_projection", "image_projection")
TEXT_PARTS = ("text_model", "text_projection")
"""What transformers' dual encoders call their parts."""


def choose_trained(model: Any, parts: TrainedParts) -> None:
    """Freeze a dual encoder but for some parts; LoRA wraps its image tower.

    Raises:
        InputError: the tower has no blocks where some of them are to train.
    """
    model.requires_grad_(False)
    name, tower = image_tower(model)
    if parts.lora_rank:
        setattr(model, name, _with_lora(tower, parts.lora_rank))
        return
    if parts.last_blocks:
        # What turns the last block's tokens into the feature goes with the block.
        after = ("post_layernorm", "layernorm", "head", "pooler")
        for part in (*list(blocks_of(tower)[1])[-parts.last_blocks :], *_named(tower, *after)):
            part.requires_grad_(True)
    else:
        tower.requires_grad_(True)
    for part in _named(model, *IMAGE_PROJECTIONS, *(TEXT_PARTS if parts.text else ())):
        part.requires_grad_(True)


def fold(model: Any, parts: TrainedParts) -> None:
    """Fold LoRA into the image tower, so that the encoder is one of its kind again."""
    if parts.lora_rank:
        name, tower = image_tower(model)
        setattr(model, name, tower.merge_and_unload())


def image_tower(model: Any) -> tuple[str, Any]:
    """The image tower of a dual encoder, and what the encoder calls it.

    Raises:
        InputError: it is of a family that calls it something else.
    """
    for name in IMAGE_TOWERS:
        if (tower := getattr(model, name, None)) is not None:
            return name, tower
    raise InputError(f"{type(model).__name__} has no image tower that can be trained by itself")


def blocks_of(tower: nn.Module) -> tuple[str, nn.ModuleList]:
    """The blocks of a tower or a decoder, and their place in it: the longest list of modules.

    Raises:
        InputError: it has none.
    """
    found = [(name, part) for name, part in tower.named_modules() if isinstance(part, nn.ModuleList)]
    if not found:
        raise InputError(f"{type(tower).__name__} has no blocks that could be treated one by one")
    return max(found, key=lambda item: len(item[1]))


def _named(module: Any, *names: str) -> list[nn.Module]:
    """Those of the sub-modules that this family of models has."""
    found = (getattr(module, name, None) for name in names)
    return [part for part in found if isinstance(part, nn.Module)]


def _with_lora(tower: Any, rank: int) -> Any:
    """LoRA on all matrices of the blocks, whatever the family calls them."""
    from peft import LoraConfig, get_peft_model

    place, blocks = blocks_of(tower)
    targets = [f"{place}.{name}" for name, part in blocks.named_modules() if isinstance(part, nn.Linear)]
    if not targets:
        raise InputError(f"LoRA finds no matrices in the blocks of {type(tower).__name__}")
    return get_peft_model(tower, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
