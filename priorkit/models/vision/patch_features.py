"""Features of single patches in the space of images and texts.

A patch token goes through what the model does with its pooled token: the final layer norm, then CLIP's visual
projection; or SigLIP's attention pooling over that one token, in which the attention's weight is 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.blocks import IMAGE_TOWERS
from priorkit.models.pretrained import load_preprocessor
from priorkit.models.vision.loading import load_config
from priorkit.models.vision.preprocessing import Preprocessing
from priorkit.models.vision.towers import depth


def normed_tokens(model: Any, tokens: Tensor) -> Tensor:
    """Tokens of any hidden state after the image tower's final layer norm, ``[tokens, width]``."""
    return _tower(model).post_layernorm(tokens)


def project_tokens(model: Any, normed: Tensor) -> Tensor:
    """Features ``[tokens, dim]`` of normed tokens ``[tokens, width]``, comparable with text features."""
    projection = getattr(model, "visual_projection", None)
    return _tower(model).head(normed[:, None]) if projection is None else projection(normed)


def check_patch_features(model: Any) -> None:
    """Check that a model's patches have features.

    Raises:
        InputError: its family has no final layer norm with a projection or an attention pooling.
    """
    tower = _tower(model)
    projects = hasattr(model, "visual_projection") or callable(getattr(tower, "head", None))
    if not projects or not callable(getattr(tower, "post_layernorm", None)):
        raise InputError(
            f"the patches of {type(model).__name__} cannot be compared with texts",
            hint="use an encoder such as CLIP or SigLIP",
        )


def check_patch_encoder(folder: Path) -> int:
    """Check from its files that an encoder's patches can be compared with texts and with boxes.

    Returns:
        The number of layers of its image tower.

    Raises:
        InputError: its patches have no features, or where its image processor puts a box is not known.
    """
    from transformers import AutoImageProcessor, AutoModel

    config = load_config(folder)
    with torch.device("meta"):
        check_patch_features(AutoModel.from_config(config))
    Preprocessing(load_preprocessor(AutoImageProcessor, folder)).window(1, 1)
    return depth(config)


def _tower(model: Any) -> Any:
    return next((tower for name in IMAGE_TOWERS if (tower := getattr(model, name, None)) is not None), model)
