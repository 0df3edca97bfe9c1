"""Objective of encoder pretraining: CLIP's or SigLIP's loss with repeated captions as positives."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from priorkit.core.process.runtime import rank, world_size
from priorkit.core.process.seeds import stream_seed
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.pixels import Pixels
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.training.objectives.base import Loss

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


def text_key(text: str) -> int:
    """A number that is equal for equal texts in every process."""
    return zlib.crc32(text.encode())


class Captions:
    """Texts tokenized once, padded per batch to its longest text.

    Args:
        encoder: whose tokenizer is used; texts that it pads to a fixed length stay padded (SigLIP).
        texts: the texts.

    Attributes:
        keys: int64 ``[texts]``, equal for equal texts.
    """

    _CHUNK = 8192

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.keys = torch.tensor([text_key(text) for text in texts])
        self._padding = {"input_ids": int(getattr(encoder.tokenizer, "pad_token_id", None) or 0)}
        fixed_length = _pads_to_fixed_length(encoder)
        flat: dict[str, list[Tensor]] = {}
        lengths: list[Tensor] = []
        for start in range(0, len(texts), self._CHUNK):
            tokens = encoder.tokenize(texts[start : start + self._CHUNK])
            used = _used_tokens(tokens, fixed_length)
            lengths.append(used.sum(dim=1))
            for name, value in tokens.items():
                flat.setdefault(name, []).append(value[used].to(torch.int32))
        # All tokens in one tensor, and where each text ends: ten million captions fit in memory.
        self._flat = {name: torch.cat(parts) for name, parts in flat.items()}
        self._ends = torch.cat(lengths).cumsum(0).tolist()

    def __len__(self) -> int:
        return len(self._ends)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Token ids and mask of some texts, int64 ``[texts, longest]``."""
        spans = [(self._ends[index - 1] if index else 0, self._ends[index]) for index in indices]
        return {
            name: nn.utils.rnn.pad_sequence(
                [flat[start:end] for start, end in spans],
                batch_first=True,
                padding_value=self._padding.get(name, 0),
            ).long()
            for name, flat in self._flat.items()
        }


def _pads_to_fixed_length(encoder: Encoder) -> bool:
    """Whether even an empty text is padded, as SigLIP's are, whose text tower reads the last position."""
    tokens = encoder.tokenize([""])
    return "attention_mask" not in tokens or not bool(tokens["attention_mask"].all())


def _used_tokens(tokens: dict[str, Tensor], fixed_length: bool) -> Tensor:
    """Mask of the tokens to keep, bool ``[texts, time]``: all but padding on the right."""
    mask = tokens.get("attention_mask", torch.ones_like(tokens["input_ids"])).bool()
    return torch.ones_like(mask) if fixed_length or not bool(mask[:, 0].all()) else mask


class ContrastiveObjective:
    """CLIP's or SigLIP's loss over image-text pairs.

    Args:
        encoder: the model with its preprocessing; both towers are trained.
        pixels: the images.
        texts: their texts, in the same order.
        augmentation: of the images.
        seed: the run's seed.
        loss: ``clip`` or ``siglip``; the latter needs a model with ``logit_bias``.
        gradient_cache: pairs whose activations are in memory at a time, 0 for the full batch; see
            :func:`gradient_cached_features`.
    """

    unit = "images"

    def __init__(
        self,
        encoder: Encoder,
        pixels: Pixels,
        texts: Sequence[str],
        augmentation: AugmentationSettings,
        seed: int,
        loss: Literal["clip", "siglip"] = "clip",
        gradient_cache: int = 0,
    ) -> None:
        self.module: nn.Module = encoder.model
        self._encoder, self._pixels, self._captions = encoder, pixels, Captions(encoder, texts)
        self._augmentation, self._seed = augmentation, seed
        self._loss, self._chunk = loss, gradient_cache

    def __len__(self) -> int:
        return len(self._captions)

    def sample(self, index: int, position: int) -> tuple[Tensor, int]:
        """An image in its view at this position of the stream, and the index of its text."""
        view = self._pixels.draw(index, self._augmentation, stream_seed(self._seed, position))
        return self._pixels.view(index, view), index

    def collate(self, samples: Sequence[tuple[Tensor, int]]) -> dict[str, Any]:
        """Pixels uint8, tokens, and keys that are equal for equal texts."""
        indices = [index for _, index in samples]
        return {
            "pixels": torch.stack([pixels for pixels, _ in samples]),
            "tokens": self._captions.batch(indices),
            "keys": self._captions.keys[indices],
        }

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of pairs."""
        return len(batch["keys"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """Summed contrastive loss."""
        model, chunk = self._encoder.model, self._chunk
        pixels = {"pixels": batch["pixels"]}
        images = l2_normalize(
            gradient_cached_features(lambda rows: self._encoder.image_features(rows["pixels"]), pixels, chunk)
        )
        texts = l2_normalize(gradient_cached_features(self._encoder.text_features, batch["tokens"], chunk))
        if self._loss == "siglip":
            scale, bias = model.logit_scale.exp(), model.logit_bias
            return Loss(sigmoid_loss(images, texts, scale, bias, batch["keys"]))
        scale = model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
        return Loss(contrastive_loss(images, texts, scale, batch["keys"]))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters have the same learning rate."""
        return 1.0
