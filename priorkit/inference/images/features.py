"""What to take of a batch of prepared images: the *transforms* that :mod:`priorkit.inference.images.encode` applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from priorkit.models.multimodal.base import MultimodalModel
    from priorkit.models.multimodal.image_part import ImagePart
    from priorkit.models.vision.encoder import Encoder
    from priorkit.models.vision.towers import Pooling


def pooled_features(encoder: Encoder | ImagePart, prepared: list[Any]) -> Tensor:
    """L2-normalized pooled features, fp32 ``[batch, dim]`` on the CPU."""
    batch: Any = encoder.batch(prepared)
    return encoder.encode_images(batch)


def patch_features(multimodal: MultimodalModel, prepared: list[Tensor]) -> Tensor:
    """The patch features that a multimodal model's projector reads, ``[batch, tokens, width]`` on its device."""
    return multimodal.patch_features(torch.stack(prepared).to(multimodal.device))


@dataclass(frozen=True)
class LayerFeatures:
    """A transform: pooled hidden states of several layers.

    Attributes:
        layers: numbers of hidden states, 0 the embeddings; empty for the encoder's pooled feature.
        pooling: how a hidden state becomes one vector.
    """

    layers: Sequence[int]
    pooling: Pooling

    def __call__(self, encoder: Encoder, prepared: list[Tensor]) -> Tensor:
        """fp32 ``[batch, layers, width]`` on the CPU; without layers ``[batch, 1, dim]``."""
        pixels = encoder.on_device(encoder.batch(prepared))
        output = encoder.forward_vision(pixels, hidden_states=bool(self.layers))
        if not self.layers:
            return output.features[:, None].float().cpu()
        return torch.stack([output.pooled(layer, self.pooling) for layer in self.layers], 1).float().cpu()
