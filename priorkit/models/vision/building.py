"""New encoders from a preset or a config.json: CLIP and SigLIP with randomly initialized weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from priorkit.core.errors import InputError
from priorkit.models.folder import read_json
from priorkit.models.presets import choose_preset, read_presets
from priorkit.models.vision.caption_tokenizer import train_caption_tokenizer
from priorkit.models.vision.encoder import Encoder

if TYPE_CHECKING:
    from PIL import Image

SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0
"""Initial scale and bias of the sigmoid loss; the bias offsets the many negatives (Zhai et al. 2023, section 3.2)."""

_SHAPE_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("image_size", "patch_size", "max_position_embeddings", "layer_norm_eps", "attention_dropout"),
)


def presets() -> dict[str, dict[str, Any]]:
    """The presets by name; each has ``projection_dim`` and the fields of ``vision`` and ``text``."""
    return read_presets("priorkit.models.vision")


def preset_shape(name: str) -> dict[str, Any]:
    """One preset.

    Raises:
        UsageError: there is no preset of that name.
    """
    return choose_preset(presets(), name, "encoder preset")


def read_shape(file: Path) -> dict[str, Any]:
    """The shape in the ``config.json`` of a CLIP-like model, with the fields of a preset.

    Raises:
        InputError: not the config.json of a CLIP-like model.
    """
    config = read_json(file)
    parts = {name: config.get(f"{name}_config") for name in ("vision", "text")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise InputError(
            "no vision_config and text_config; expected the config.json of a CLIP or SigLIP model",
            where=str(file),
        )
    shape: dict[str, Any] = {
        name: {key: value for key, value in part.items() if key in _SHAPE_FIELDS}
        for name, part in parts.items()
        if isinstance(part, dict)
    }
    missing = [
        f"{name}_config.{key}"
        for name, keys in (("vision", ("hidden_size", "image_size")), ("text", ("max_position_embeddings",)))
        for key in keys
        if key not in shape[name]
    ]
    if missing:
        raise InputError(f"{', '.join(missing)} missing", where=str(file))
    return {"projection_dim": config.get("projection_dim") or shape["vision"]["hidden_size"], **shape}


def build_encoder(
    shape: str | Mapping[str, Any],
    texts: Iterable[str],
    sample: Sequence[Image.Image],
    vocab_size: int,
    seed: int,
    loss: Literal["clip", "siglip"] = "clip",
) -> Encoder:
    """A CLIP or SigLIP model with randomly initialized weights and a tokenizer trained on the texts.

    Args:
        shape: the name of a preset, or its fields, see :func:`presets` and :func:`read_shape`.
        texts: the captions that the tokenizer is trained on.
        sample: images whose mean and standard deviation per channel become the normalization.
        vocab_size: size of the vocabulary.
        seed: of the initial weights.
        loss: the training loss; it decides the architecture, ``CLIPModel`` or ``SiglipModel``.

    Raises:
        UsageError: there is no such preset.
    """
    from transformers import CLIPImageProcessor, SiglipImageProcessor

    if isinstance(shape, str):
        shape = preset_shape(shape)
    tokenizer = train_caption_tokenizer(texts, vocab_size, shape["text"]["max_position_embeddings"])
    torch.manual_seed(seed)
    model = _siglip(shape, tokenizer) if loss == "siglip" else _clip(shape, tokenizer)
    size = shape["vision"]["image_size"]
    mean, std = _channel_statistics(sample)
    if loss == "siglip":
        # As in SigLIP, every text is padded to the full length and the padding is not masked.
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
        # SigLIP squashes images to a square, so nothing at the edges is lost.
        processor = SiglipImageProcessor(size={"height": size, "width": size}, image_mean=mean, image_std=std)
    else:
        processor = CLIPImageProcessor(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=mean,
            image_std=std,
        )
    return Encoder(model, processor, tokenizer)


def _text_config(shape: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
    return {
        **shape["text"],
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _clip(shape: Mapping[str, Any], tokenizer: Any) -> Any:
    from transformers import CLIPConfig, CLIPModel

    width = shape["projection_dim"]
    text = {**_text_config(shape, tokenizer), "projection_dim": width}
    vision = {**shape["vision"], "projection_dim": width}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))
    # As in the original CLIP. transformers' standard deviation of 0.02 is small compared with the patch
    # embeddings, so that an untrained tower has little information on where a patch is.
    positions = model.vision_model.embeddings.position_embedding.weight
    torch.nn.init.normal_(positions, std=vision["hidden_size"] ** -0.5)
    return model


def _siglip(shape: Mapping[str, Any], tokenizer: Any) -> Any:
    """The image tower's pooled output is the feature; the text tower's head projects to its width."""
    from transformers import SiglipConfig, SiglipModel

    text = {**_text_config(shape, tokenizer), "projection_size": shape["vision"]["hidden_size"]}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=shape["vision"]))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(SIGLIP_SCALE))
        model.logit_bias.fill_(SIGLIP_BIAS)
    return model


def _channel_statistics(images: Sequence[Image.Image]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel over all pixels of the images, on a scale of 0 to 1."""
    import numpy as np

    pixels = np.concatenate([np.asarray(image, dtype=np.float64).reshape(-1, 3) for image in images]) / 255
    return pixels.mean(axis=0).round(4).tolist(), pixels.std(axis=0).clip(min=1e-3).round(4).tolist()
