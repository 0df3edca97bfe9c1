"""Activation checkpointing: what of a forward pass is kept for the backward one."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

Activations = Literal["none", "selective", "full"]

_KEPT = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
"""Products: dear to compute again. Everything else, cheap and large, is recomputed."""


def checkpoint_activations(model: Any, which: Activations) -> None:
    """Recompute activations in the backward pass, layer by layer, in place of keeping them.

    Args:
        model: a transformers model.
        which: ``full`` keeps the layers' inputs alone; ``selective`` keeps the results of matrix products
            too, so that only elementwise work is done twice.
    """
    if which == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if which == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # the older name, all that older versions of transformers know
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


def _policy(context: Any, operation: Any, *args: Any, **options: Any) -> CheckpointPolicy:
    kept = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
