"""Losses of single patches: against the texts of regions, and of the boxes they predict."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss

from priorkit.training.objectives.contrastive_losses import all_gather

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
"""DETR's."""


def name_loss(logits: Tensor, text: Tensor, others: Tensor, bias: Tensor | None = None) -> Tensor:
    """Cross-entropy of patches over texts, or the sum of SigLIP's losses where there is a bias.

    Args:
        logits: scaled similarities, fp32 ``[rows, texts]``.
        text: the column of each row's text, int64 ``[rows]``.
        others: further columns that are true of the row and no negatives, int64 ``[rows, any]``; padded with
            the row's own.
        bias: added to every logit before the sigmoid; None for a softmax.

    Returns:
        fp32 ``[rows]``.
    """
    own = nn.functional.one_hot(text, logits.shape[1]).bool()
    left_out = torch.zeros_like(own).scatter_(1, others, True) & ~own
    if bias is None:
        return nn.functional.cross_entropy(logits.masked_fill(left_out, -torch.inf), text, reduction="none")
    logits = logits + bias.float()
    signed = torch.where(own, logits, -logits)
    return -nn.functional.logsigmoid(signed).masked_fill(left_out, 0.0).sum(dim=1)


def box_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """DETR's box loss, ``5 |b - b'|_1 + 2 (1 - GIoU(b, b'))`` (Carion et al. 2020, section 3.1).

    Args:
        predicted, truth: center, width and height as shares of the image, fp32 ``[rows, 4]``.

    Returns:
        ``[rows]``.
    """
    distance = (predicted - truth).abs().sum(dim=1)
    corners = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (predicted, truth))
    return L1_WEIGHT * distance + GIOU_WEIGHT * generalized_box_iou_loss(*corners, reduction="none")


def gathered_texts(features: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct texts of all processes, each once, and where this process's are among them.

    Args:
        features: of this process's texts, ``[own, dim]``; gradients flow back to the first process that has a
            text.
        keys: int64 ``[own]``, distinct; equal for equal texts in all processes.

    Returns:
        Features ``[texts, dim]`` by increasing key; int64 ``[own]``, rows of them.
    """
    all_keys = keys
    if dist.is_initialized():
        counts: list[int] = all_gather(torch.tensor([len(keys)], device=keys.device)).tolist()
        most = max(counts)
        if not most:
            return features, keys
        missing = most - len(keys)
        features = all_gather(nn.functional.pad(features, (0, 0, 0, missing)))
        all_keys = all_gather(nn.functional.pad(keys, (0, missing)))
        places = torch.arange(most, device=keys.device)
        real = torch.cat([places < count for count in counts])
        features, all_keys = features[real], all_keys[real]
    distinct, place = all_keys.unique(return_inverse=True)
    numbers = torch.arange(len(all_keys), device=keys.device)
    first = numbers.new_full((len(distinct),), len(all_keys)).scatter_reduce(0, place, numbers, "amin")
    return features[first], torch.searchsorted(distinct, keys)
