"""Which attention implementation trains fastest where."""

from __future__ import annotations

from typing import Any


def choose_attention(model: Any, device_type: str) -> None:
    """Use plain softmax attention for training on CPUs, and leave GPUs to torch's fused kernels.

    torch's fused attention has a slow backward pass on CPUs: on a ViT of width 128 with 37 tokens and
    128 images it takes 134 of 229 ms of a step; with plain softmax the whole step takes 99 ms. The
    choice is not saved with the model.

    Args:
        model: a transformers model.
        device_type: ``cpu`` or ``cuda``.
    """
    if device_type == "cpu":
        model.set_attn_implementation("eager")
