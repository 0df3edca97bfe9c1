"""Losses of single patches: against the texts of regions, and of the boxes they predict."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision.ops import box_convert, generalized_box_iou_loss

from priorkit.training.objectives.contrastive_losses import all_gather

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
"""DETR's."""


def name_loss(logits: Tensor, patch: Tensor, text: Tensor, bias: Tensor | None = None) -> Tensor:
    """Loss of true pairs of a patch and a text against the image's other patches and all other texts.

    Half of it compares the pair with the same patch and other texts, half with the same text and other patches
    of the image; other true pairs are left out. With ``l`` the pair's logit and ``l_-`` those of the false pairs,
    each half is the cross-entropy ``log(1 + sum exp(l_- - l))``, or with a bias ``c`` the sum of SigLIP's
    ``- log sigmoid(l + c) - sum log sigmoid(-(l_- + c))``.

    Args:
        logits: scaled similarities, fp32 ``[images, patches, texts]``.
        patch, text: int64 ``[images, pairs]``, the true pairs; repetition does not matter.
        bias: added to every logit; None for a softmax.

    Returns:
        fp32 ``[images, pairs]``.
    """
    image = torch.arange(len(logits), device=logits.device)[:, None]
    true = torch.zeros_like(logits, dtype=torch.bool)
    true[image, patch, text] = True
    softplus = nn.functional.softplus
    if bias is not None:
        logits = logits + bias.float()
        false = softplus(logits).masked_fill(true, 0.0)
        others = false.sum(dim=2)[image, patch] + false.sum(dim=1)[image, text]
        return softplus(-logits[image, patch, text]) + others / 2
    # Finite, as the gradient of an empty sum would be none.
    false = logits.masked_fill(true, torch.finfo(logits.dtype).min / 2)
    own = logits[image, patch, text]
    other_texts, other_patches = false.logsumexp(dim=2)[image, patch], false.logsumexp(dim=1)[image, text]
    return (softplus(other_texts - own) + softplus(other_patches - own)) / 2


def box_loss(predicted: Tensor, truth: Tensor) -> Tensor:
    """DETR's box loss, ``5 |b - b'|_1 + 2 (1 - GIoU(b, b'))`` (Carion et al. 2020, section 3.1).

    Args:
        predicted, truth: center, width and height as shares of the image, fp32 ``[..., 4]``.

    Returns:
        ``[...]``.
    """
    distance = (predicted - truth).abs().sum(dim=-1)
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
