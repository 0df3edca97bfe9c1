"""Gradient caching: large contrastive batches with the activations of one chunk in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def gradient_cached_features(
    tower: Callable[[dict[str, Tensor]], Tensor], batch: dict[str, Tensor], size: int
) -> Tensor:
    """Features of a batch with gradient caching.

    See :func:`gradient_cached_forward`.

    Args:
        tower: computes features ``[rows, dim]`` of a chunk.
        batch: tensors with the same number of rows.
        size: rows per chunk; 0 for no gradient caching.

    Returns:
        ``[batch, dim]``.
    """
    return gradient_cached_forward(lambda chunk: (tower(chunk),), batch, size)[0]


def gradient_cached_forward(
    tower: Callable[[dict[str, Tensor]], tuple[Tensor, ...]], batch: dict[str, Tensor], size: int
) -> tuple[Tensor, ...]:
    """Outputs of a tower for a batch, with the activations of only one chunk in memory at a time.

    The contrastive loss needs the features of the full batch, not the activations behind them. So a
    chunk's activations are dropped after its forward pass and recomputed in the backward pass: gradient
    caching (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"),
    here as activation checkpointing over chunks of the batch. The gradient is that of the full batch; the
    cost is one more forward pass.

    Args:
        tower: computes tensors ``[rows, ...]`` of a chunk; each row depends only on its own input row.
        batch: tensors with the same number of rows.
        size: rows per chunk; 0 for no gradient caching.

    Returns:
        ``[batch, ...]`` each.
    """
    count = len(next(iter(batch.values())))
    if not size or size >= count or not torch.is_grad_enabled():
        return tower(batch)
    chunks = ({name: value[i : i + size] for name, value in batch.items()} for i in range(0, count, size))
    outputs = [cast("tuple[Tensor, ...]", checkpoint(tower, chunk, use_reentrant=False)) for chunk in chunks]
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))
