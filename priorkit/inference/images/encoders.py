"""Encoders as users have them: a model of its own, or the one inside an image-text-to-text model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.models.multimodal.image_part import check_image_part, has_image_part, load_image_part
from priorkit.models.vision.loading import check_encoder, check_end_token, encoder_loader

if TYPE_CHECKING:
    import torch

    from priorkit.models.multimodal.image_part import ImagePart


def check_any_encoder(folder: Path, names: bool = True) -> tuple[dict[str, Any], bool]:
    """Check from headers that a folder has an image encoder.

    Args:
        folder: an encoder in Hugging Face's or timm's layout, or an image-text-to-text model of transformers.
        names: whether a text tower, where there is one, will encode names.

    Returns:
        Its ``config.json``, and whether it has a text tower: not where the encoder is part of a multimodal model.

    Raises:
        InputError: neither of the two, files are missing, or the text tower cannot tell names apart.
    """
    if has_image_part(folder):
        return check_image_part(folder), False
    config = check_encoder(folder, text=False)
    text_tower = "text_config" in config
    if names and text_tower:
        check_end_token(folder)
    return config, text_tower


def any_encoder_loader(folder: Path, device: torch.device, text: bool = False) -> Callable[[], Any]:
    """A function that loads an encoder onto a device at its first call, see :func:`check_any_encoder`.

    What it loads is an :class:`priorkit.models.vision.encoder.Encoder`, or an :class:`ImagePart`, which has no text
    tower.
    """
    if not has_image_part(folder):
        return encoder_loader(folder, device, text)

    @cache
    def load() -> ImagePart:
        part = load_image_part(folder)
        part.model.to(device)
        return part

    return load
