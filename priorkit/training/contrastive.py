"""Objective of encoder pretraining: CLIP's contrastive loss with repeated captions as positives."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from priorkit.core.runtime import rank, world_size
from priorkit.data.pixels import Pixels, shift
from priorkit.models.encoder import Encoder, unit
from priorkit.training.objective import Loss

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
    positives of one another, as they would be false negatives otherwise.

    Args:
        images, texts: L2-normalised ``[batch, dim]``, this process's.
        scale: the inverse temperature.
        keys: int64 ``[batch]``, equal for equal texts.
    """
    all_images, all_texts, all_keys = gather(images), gather(texts), gather(keys)
    positives = keys[:, None] == all_keys[None, :]
    by_image = soft_cross_entropy(similarity(images, all_texts, scale), positives)
    by_text = soft_cross_entropy(similarity(texts, all_images, scale), positives)
    return (by_image + by_text).sum() / 2


def similarity(rows: Tensor, columns: Tensor, scale: Tensor) -> Tensor:
    """Scaled inner products in fp32, whatever the run's precision.

    Early in training all features are nearly parallel; bf16 cannot tell cosines apart that differ by
    less than 0.004, and the towers would learn from rounding.

    Args:
        rows: ``[rows, dim]``.
        columns: ``[columns, dim]``.
        scale: the inverse temperature.

    Returns:
        fp32 ``[rows, columns]``.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return scale.float() * rows.float() @ columns.float().T


def gather(values: Tensor) -> Tensor:
    """The rows of all processes, in order; gradients flow back to each."""
    if not dist.is_initialized():
        return values
    if values.requires_grad:
        return torch.cat(list(dist_nn.all_gather(values)))
    parts = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(parts, values.contiguous())
    parts[rank()] = values
    return torch.cat(parts)


def text_key(text: str) -> int:
    """A number that is equal for equal texts in every process."""
    return zlib.crc32(text.encode())


class ContrastiveObjective:
    """CLIP's loss over image-text pairs.

    Args:
        encoder: the model with its preprocessing; both towers are trained.
        pixels: the images.
        texts: their texts, in the same order.
        augment_shift: images are moved by up to this many pixels each time they are seen.
        seed: the run's seed.
    """

    unit = "images"

    def __init__(
        self, encoder: Encoder, pixels: Pixels, texts: Sequence[str], augment_shift: int, seed: int
    ) -> None:
        self.module: nn.Module = encoder.model
        self._encoder, self._pixels, self._texts = encoder, pixels, texts
        self._shift, self._seed = augment_shift, seed

    def __len__(self) -> int:
        return len(self._texts)

    def sample(self, index: int, position: int) -> tuple[Tensor, str]:
        """An image, moved a little, and its text."""
        moved = shift(self._pixels[index], self._shift, self._seed * 1_000_003 + position)
        return moved, self._texts[index]

    def collate(self, samples: Sequence[tuple[Tensor, str]]) -> dict[str, Any]:
        """Pixels uint8, tokens, and keys that tell equal texts."""
        texts = [text for _, text in samples]
        return {
            "pixels": torch.stack([pixels for pixels, _ in samples]),
            "tokens": self._encoder.tokenise(texts),
            "keys": torch.tensor([text_key(text) for text in texts]),
        }

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of pairs."""
        return len(batch["keys"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """Summed contrastive loss."""
        images = unit(self._encoder.image_features(batch["pixels"]))
        texts = unit(self._encoder.text_features(batch["tokens"]))
        scale = self._encoder.model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return Loss(contrastive_loss(images, texts, scale, batch["keys"]))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters learn at the same rate."""
        return 1.0
