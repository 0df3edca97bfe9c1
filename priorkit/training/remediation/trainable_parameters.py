"""Trainable parameters of an encoder: all or some of its towers, or LoRA on the image tower, merged later."""

from __future__ import annotations

from typing import Any

from torch import nn

from priorkit.core.errors import InputError
from priorkit.models.blocks import find_image_tower, transformer_blocks
from priorkit.training.remediation.settings import TrainableParameters

IMAGE_PROJECTIONS = ("visual_projection", "vision_projection", "image_projection")
TEXT_PARTS = ("text_model", "text_projection")
"""What transformers' dual encoders call their trainable."""


def set_trainable(model: Any, trainable: TrainableParameters) -> None:
    """Freeze a dual encoder except for the chosen parameters; LoRA wraps its image tower.

    Raises:
        InputError: the tower has no blocks where only some of them are to be trained.
    """
    model.requires_grad_(False)
    name, tower = find_image_tower(model)
    if trainable.lora_rank:
        setattr(model, name, _with_lora(tower, trainable.lora_rank))
        return
    if trainable.last_blocks:
        # What turns the last block's tokens into the feature is trained with the block.
        after = ("post_layernorm", "layernorm", "head", "pooler")
        for part in (*list(transformer_blocks(tower)[1])[-trainable.last_blocks :], *_named(tower, *after)):
            part.requires_grad_(True)
    else:
        tower.requires_grad_(True)
    for part in _named(model, *IMAGE_PROJECTIONS, *(TEXT_PARTS if trainable.text else ())):
        part.requires_grad_(True)


def merge_lora(model: Any, trainable: TrainableParameters) -> None:
    """Merge LoRA into the image tower, so that the encoder has its family's layout again."""
    if trainable.lora_rank:
        name, tower = find_image_tower(model)
        setattr(model, name, tower.merge_and_unload())


def _named(module: Any, *names: str) -> list[nn.Module]:
    """Those of the sub-modules that this family of models has."""
    candidates = (getattr(module, name, None) for name in names)
    return [part for part in candidates if isinstance(part, nn.Module)]


def _with_lora(tower: Any, rank: int) -> Any:
    """LoRA on all linear layers of the blocks, whatever the family calls them."""
    from peft import LoraConfig, get_peft_model

    prefix, blocks = transformer_blocks(tower)
    targets = [f"{prefix}.{name}" for name, part in blocks.named_modules() if isinstance(part, nn.Linear)]
    if not targets:
        raise InputError(f"LoRA finds no linear layers in the blocks of {type(tower).__name__}")
    return get_peft_model(tower, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
