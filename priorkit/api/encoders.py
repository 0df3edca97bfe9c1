"""Encoders: features of images and texts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from priorkit.models.vision.encoder import Encoder


@dataclass(frozen=True)
class FeatureEncoder:
    """An encoder that embeds images and, with a text tower, texts.

    Attributes:
        encoder: the model with its preprocessing and tokenizer.
    """

    encoder: Encoder

    @property
    def has_text(self) -> bool:
        """Whether it has a text tower."""
        return self.encoder.has_text

    def embed_images(self, images: Sequence[str | os.PathLike[str] | Image], batch_size: int = 64) -> Tensor:
        """L2-normalized features ``[images, dim]``, fp32 on the CPU.

        Args:
            images: paths or PIL images.
            batch_size: images per forward pass.

        Raises:
            InputError: an image cannot be decoded.
        """
        import torch

        features: list[Tensor] = []
        for start in range(0, len(images), batch_size):
            prepared = [self.encoder.prepare(_decoded(image)) for image in images[start : start + batch_size]]
            features.append(self.encoder.encode_images(self.encoder.batch(prepared)))
        return torch.cat(features)

    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """L2-normalized features ``[texts, dim]``, fp32 on the CPU.

        Args:
            texts: names in their prompt template, or captions.
            batch_size: texts per forward pass.

        Raises:
            InputError: there is no text tower.
        """
        import torch

        return torch.cat(list(self.encoder.encode_texts(list(texts), batch_size)))


def load_encoder(
    path_or_id: str | os.PathLike[str], device: str = "auto", text: bool = False
) -> FeatureEncoder:
    """Load an encoder: CLIP, SigLIP, DINOv2, ViT, a timm model ...

    Args:
        path_or_id: an artifact, a model directory, or a Hugging Face hub id (``owner/name@revision``).
        device: ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
        text: require a text tower.

    Raises:
        InputError: there is no such encoder, or it cannot be loaded.
        ResourceError: there is no such device.
    """
    from priorkit.core.inputs import resolve
    from priorkit.core.process.runtime import choose_device
    from priorkit.models.vision.loading import load_encoder as load

    source = resolve(os.fspath(path_or_id), "path_or_id", ("encoder",), hub="model")
    source.verify(thorough=False)
    encoder = load(source.path, text=text)
    encoder.model.to(choose_device(device))
    return FeatureEncoder(encoder)


def _decoded(image: Any) -> Image:
    from priorkit.data.images.decoding import ImageRef, decode

    if isinstance(image, str | os.PathLike):
        return decode(ImageRef(os.fspath(image), Path(image)))
    return image.convert("RGB")
