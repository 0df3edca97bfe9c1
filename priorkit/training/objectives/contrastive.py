"""Objective of encoder pretraining: CLIP's or SigLIP's loss, and a term on regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from priorkit.core.process.seeds import stream_seed
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.pixels import Pixels
from priorkit.data.images.region_views import VisibleRegion
from priorkit.models.vision.encoder import Encoder, l2_normalize
from priorkit.training.objectives.base import Loss
from priorkit.training.objectives.captions import Captions
from priorkit.training.objectives.contrastive_losses import MAX_LOGIT_SCALE, contrastive_loss, sigmoid_loss
from priorkit.training.objectives.gradient_cache import gradient_cached_features, gradient_cached_forward
from priorkit.training.objectives.regions import RegionTerm


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
            :func:`priorkit.training.objectives.gradient_cache.gradient_cached_forward`.
        regions: a further term, on the regions of the images; None for none.
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
        regions: RegionTerm | None = None,
    ) -> None:
        self.module: nn.Module = encoder.model if regions is None else regions.module
        self._encoder, self._pixels, self._captions = encoder, pixels, Captions(encoder, texts)
        self._augmentation, self._seed = augmentation, seed
        self._loss, self._chunk, self._regions = loss, gradient_cache, regions

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are logged with the loss."""
        return () if self._regions is None else self._regions.metrics

    @property
    def pooled_only(self) -> bool:
        """Whether the last block's output is read at the pooled token only."""
        return self._regions is None or not self._regions.reads_last_layer

    def __len__(self) -> int:
        return len(self._captions)

    def sample(self, index: int, position: int) -> tuple[Tensor, int, list[VisibleRegion]]:
        """An image in its view at this position of the stream, the index of its text, and its visible regions."""
        view = self._pixels.draw(index, self._augmentation, stream_seed(self._seed, position))
        visible = [] if self._regions is None else self._regions.sample(index, view)
        return self._pixels.view(index, view), index, visible

    def collate(self, samples: Sequence[tuple[Tensor, int, list[VisibleRegion]]]) -> dict[str, Any]:
        """Pixels uint8, tokens, keys that are equal for equal texts, and the rows of the region term."""
        pixels, indices, visible = zip(*samples, strict=True)
        batch = {
            "pixels": torch.stack(pixels),
            "tokens": self._captions.batch(indices),
            "keys": self._captions.keys[list(indices)],
        }
        return (
            batch if self._regions is None else {**batch, "regions": self._regions.collate(indices, visible)}
        )

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of pairs."""
        return len(batch["keys"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """Summed contrastive loss, and the region term times the number of images."""
        model, chunk = self._encoder.model, self._chunk
        images, *tokens = gradient_cached_forward(self._image_tower, {"pixels": batch["pixels"]}, chunk)
        captions = gradient_cached_features(self._encoder.text_features, batch["tokens"], chunk)
        images, texts = l2_normalize(images), l2_normalize(captions)
        if self._loss == "siglip":
            scale, bias = model.logit_scale.exp(), model.logit_bias
            total = sigmoid_loss(images, texts, scale, bias, batch["keys"])
        else:
            scale = model.logit_scale.exp().clamp(max=MAX_LOGIT_SCALE)
            total = contrastive_loss(images, texts, scale, batch["keys"])
        if self._regions is None:
            return Loss(total)
        return self._regions.add_to(total, self.weight(batch), batch["regions"], tokens[0], captions, chunk)

    def _image_tower(self, rows: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The images' features, and the patches of the trained layer if there is a region term."""
        if self._regions is None:
            return (self._encoder.image_features(rows["pixels"]),)
        output = self._encoder.forward_vision(rows["pixels"], hidden_states=True)
        return output.features, output.layer(self._regions.weights.layer)

    def learning_rate_scale(self, name: str) -> float:
        """All parameters have the same learning rate."""
        return 1.0
