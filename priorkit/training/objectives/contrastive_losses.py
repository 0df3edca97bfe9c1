"""CLIP's and SigLIP's losses over the pairs of all processes, with repeated captions as positives."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from priorkit.core.process.runtime import rank, world_size

MAX_LOGIT_SCALE = 100.0
"""CLIP's bound on the inverse temperature (Radford et al. 2021, section 2.5)."""


def soft_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Cross-entropy against a uniform distribution over each row's positives.

    Args:
        logits: ``[rows, columns]``.
        positives: bool ``[rows, columns]``, at least one per row.

    Returns:
        ``[rows]`` fp32.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    counts = positives.sum(dim=-1)
    return -(log_probabilities.masked_fill(~positives, 0.0).sum(dim=-1) / counts)


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, keys: Tensor) -> Tensor:
    """CLIP's loss, summed over this process's rows, against the pairs of all processes.

    ``1/2 [CE over texts for each image + CE over images for each text]``; pairs with the same text are
    positives of each other; they would be false negatives otherwise.

    Args:
        images, texts: L2-normalized ``[batch, dim]``, this process's.
        scale: the inverse temperature.
        keys: int64 ``[batch]``, equal for equal texts.
    """
    all_images, all_texts, all_keys = all_gather(images), all_gather(texts), all_gather(keys)
    positives = keys[:, None] == all_keys[None, :]
    by_image = soft_cross_entropy(similarity_logits(images, all_texts, scale), positives)
    by_text = soft_cross_entropy(similarity_logits(texts, all_images, scale), positives)
    return (by_image + by_text).sum() / 2


def sigmoid_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, keys: Tensor) -> Tensor:
    """SigLIP's loss (Zhai et al. 2023, equation 1), summed over this process's images.

    ``- sum_ij log sigmoid(z_ij (scale cos_ij + bias))`` over all texts of all processes, with ``z`` = 1
    for matching image and text or equal texts, -1 otherwise.

    Args:
        images, texts: L2-normalized ``[batch, dim]``, this process's.
        scale: the inverse temperature.
        bias: added to every logit; low at first, as nearly all pairs are negatives.
        keys: int64 ``[batch]``, equal for equal texts.
    """
    positives = keys[:, None] == all_gather(keys)[None, :]
    logits = similarity_logits(images, all_gather(texts), scale) + bias.float()
    return -nn.functional.logsigmoid(torch.where(positives, logits, -logits)).sum()


def similarity_logits(rows: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """Scaled inner products in fp32, whatever the run's precision.

    Early in training all features are nearly parallel; bf16 cannot distinguish cosines that differ by less
    than 0.004, and the gradient would be dominated by rounding.

    Args:
        rows: ``[rows, dim]``.
        columns: ``[columns, dim]``.
        scale: the inverse temperature.

    Returns:
        fp32 ``[rows, columns]``.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return scale.float() * rows.float() @ columns.float().T


def all_gather(values: Tensor) -> Tensor:
    """The rows of all processes, in order; gradients flow back to each."""
    if not dist.is_initialized():
        return values
    if values.requires_grad:
        return torch.cat(list(dist_nn.all_gather(values)))
    parts = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    parts[rank()] = values
    return torch.cat(parts)
