"""Activation checkpointing: which activations of the forward pass are kept for the backward pass."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Activations = Literal["none", "selective", "full"]

_KEPT = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
"""Matrix products: expensive to recompute. Everything else, cheap and large, is recomputed."""


def checkpoint_activations(model: Any, mode: Activations) -> None:
    """Recompute activations in the backward pass, layer by layer, instead of keeping them.

    Args:
        model: a transformers model.
        mode: ``full`` keeps only the layers' inputs; ``selective`` also keeps the results of matrix products,
            so that only elementwise operations are computed twice.
    """
    if mode == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # the name in older versions of transformers
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _policy(context: Any, operation: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    saved = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE
