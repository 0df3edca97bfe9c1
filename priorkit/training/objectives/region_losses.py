"""Losses of single patches: against the texts of regions, and of the boxes they predict."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from priorkit.core.process import distributed
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
    return L1_WEIGHT * distance + GIOU_WEIGHT * (1 - generalized_iou(*corners))


NO_DIVISION_BY_ZERO = 1e-7


def generalized_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU less the share of the hull that neither box covers (Rezatofighi et al. 2019), of pairs of boxes.

    The numbers are those of torchvision's ``generalized_box_iou_loss``, which picks overlapping pairs by a mask and
    so waits for a GPU.

    Args:
        boxes, others: left, top, right, bottom, ``[..., 4]``.

    Returns:
        ``[...]``, between -1 and 1.
    """
    sizes, other_sizes = (corners[..., 2:] - corners[..., :2] for corners in (boxes, others))
    inner = torch.min(boxes[..., 2:], others[..., 2:]) - torch.max(boxes[..., :2], others[..., :2])
    hull = torch.max(boxes[..., 2:], others[..., 2:]) - torch.min(boxes[..., :2], others[..., :2])
    overlap = torch.where((inner > 0).all(dim=-1), inner[..., 0] * inner[..., 1], 0.0)
    union = sizes[..., 0] * sizes[..., 1] + other_sizes[..., 0] * other_sizes[..., 1] - overlap
    area = hull[..., 0] * hull[..., 1]
    return overlap / (union + NO_DIVISION_BY_ZERO) - (area - union) / (area + NO_DIVISION_BY_ZERO)


def gathered_texts(features: Tensor, keys: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The distinct texts of all processes, each once, and where this process's are among them.

    Args:
        features: of this process's texts, ``[own, dim]``; gradients flow back to the first process that has a
            text.
        keys: distinct numbers, increasing; equal for equal texts in all processes. They are in main memory, where
            the processes exchange them, so that none waits for its GPU.

    Returns:
        Features ``[texts, dim]`` by increasing key; int64 ``[own]``, rows of them.
    """
    device = features.device
    if not distributed.joined():
        return features, torch.arange(len(keys), device=device)
    lists: list[list[int]] = [json.loads(text) for text in distributed.all_texts(json.dumps(list(keys)))]
    most = max(map(len, lists))
    if not most:
        return features, torch.arange(0, device=device)
    features = all_gather(nn.functional.pad(features, (0, 0, 0, most - len(keys))))
    first: dict[int, int] = {}
    for number, own in enumerate(lists):
        for place, key in enumerate(own):
            first.setdefault(key, number * most + place)
    distinct = sorted(first)
    column = {key: row for row, key in enumerate(distinct)}
    rows = torch.tensor([first[key] for key in distinct]).to(device, non_blocking=True)
    own_rows = torch.tensor([column[key] for key in keys], dtype=torch.int64).to(device, non_blocking=True)
    return features[rows], own_rows
