"""Encoders of images: CLIP, SigLIP and their like with a text tower; DINOv2, ViT, MAE and timm's without."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.models.folder import read_config, read_json, tensor_files
from priorkit.models.language.causal_lm import load_checked, refuse_missing
from priorkit.models.vision.caption_tokenizer import train_caption_tokenizer
from priorkit.models.vision.encoder import Encoder, unit

if TYPE_CHECKING:
    from PIL import Image

SIGLIP_SCALE, SIGLIP_BIAS = 10.0, -10.0
"""Where the sigmoid loss starts, so that the many negatives do not swamp it (Zhai et al. 2023, section 3.2)."""


def presets() -> dict[str, dict[str, Any]]:
    """CLIP-shaped presets by name."""
    text = resources.files("priorkit.models.vision").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def preset_shape(name: str) -> dict[str, Any]:
    """One preset.

    Raises:
        UsageError: there is none of that name.
    """
    known = presets()
    if name not in known:
        raise UsageError(f"no encoder preset '{name}'", where="--preset", hint=nearest(name, known))
    return known[name]


def read_shape(file: Path) -> dict[str, Any]:
    """The shape in a ``config.json`` of CLIP, SigLIP or their like, with the fields of a preset.

    Raises:
        InputError: it is not such a file.
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


_SHAPE_FIELDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("image_size", "patch_size", "max_position_embeddings", "layer_norm_eps", "attention_dropout"),
)


def entity_head(encoder: Encoder, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One text feature per name: the mean over templates of normalised features, normalised again.

    This is CLIP's zero-shot head (Radford et al. 2021, section 3.1.4).

    Args:
        encoder: whose text tower is used.
        names: the names.
        templates: texts in which ``{}`` stands for the name.

    Returns:
        fp32 ``[names, dim]`` in main memory.
    """
    total: Tensor | None = None
    for template in templates:
        texts = [template.replace("{}", name) for name in names]
        features = torch.cat(list(encoder.embed_texts(texts)))
        total = features if total is None else total + features
    if total is None:
        raise ValueError("at least one template is needed")
    return unit(total)


def check_encoder(folder: Path, text: bool = True) -> dict[str, Any]:
    """Check from headers that a folder is an encoder of images.

    Args:
        folder: a model in Hugging Face's or timm's layout.
        text: whether a text tower is needed.

    Returns:
        Its ``config.json``; ``model_type`` is ``timm_wrapper`` for timm's own layout.

    Raises:
        InputError: no model, no weights, no preprocessing, one of another sort, or one without a text tower
            where that is needed.
    """
    config = _read_config(folder)
    kind, owner = config["model_type"], None
    dual = "text_config" in config and ("vision_config" in config or "image_config" in config)
    if kind.startswith("llava"):
        raise InputError("expected an encoder, got a multimodal model", where=str(folder))
    if not dual and text:
        raise InputError(
            f"'{kind}' has no text tower beside an image tower; an encoder such as CLIP or SigLIP is needed",
            where=str(folder),
        )
    owner = _model_class(folder)
    if dual and not hasattr(owner, "get_text_features"):
        raise InputError(f"expected an encoder, got a multimodal model ('{kind}')", where=str(folder))
    if not dual and getattr(owner, "main_input_name", "") != "pixel_values":
        raise InputError(f"expected an encoder of images, got '{kind}'", where=str(folder))
    if kind != TIMM and not any(
        (folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise InputError("no image preprocessing (preprocessor_config.json is missing)", where=str(folder))
    tensor_files(folder)
    return config


TIMM = "timm_wrapper"
"""What transformers calls a model of timm."""


def _read_config(folder: Path) -> dict[str, Any]:
    if folder.is_dir() and (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if "model_type" not in config and "architecture" in config and "pretrained_cfg" in config:
            return {"model_type": TIMM, **config}
    return read_config(folder)


def load_config(folder: Path) -> Any:
    """An encoder's configuration as transformers reads it, with every default; see ``towers.tower_config``.

    Raises:
        InputError: transformers does not know it.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"its configuration cannot be read: {str(error).strip().splitlines()[0]}", where=str(folder)
        ) from None


def _model_class(folder: Path) -> Any:
    """The class that ``AutoModel`` would build."""
    from transformers import MODEL_MAPPING

    config = load_config(folder)
    found = MODEL_MAPPING.get(type(config), None)
    return found[0] if isinstance(found, tuple | list) else found


def load_encoder(folder: Path, text: bool = True) -> Encoder:
    """Load an encoder in fp32 with its image processor and, where it has a text tower, its tokenizer.

    Args:
        folder: a model in Hugging Face's or timm's layout.
        text: whether a text tower is needed.

    Raises:
        InputError: it cannot be loaded, or has no text tower where one is needed.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    check_encoder(folder, text)
    model, info = load_checked(AutoModel, folder, dtype=torch.float32)
    refuse_missing(_without_pooler(model, info), folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoImageProcessor.from_pretrained(folder, **options)
        dual = hasattr(model, "get_text_features")
        tokenizer = AutoTokenizer.from_pretrained(folder, **options) if dual else None
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(
            f"its processor cannot be loaded: {str(error).splitlines()[0]}", where=str(folder)
        ) from None
    model.eval()
    return Encoder(model, processor, tokenizer)


def _without_pooler(model: Any, info: dict[str, Any]) -> dict[str, Any]:
    """Take away a pooler that the checkpoint has no weights for (DINO's ViT); the class token stands in."""
    missing = [str(name) for name in info.get("missing_keys", [])]
    if getattr(model, "pooler", None) is None or not any(name.startswith("pooler.") for name in missing):
        return info
    model.pooler = None
    return {**info, "missing_keys": [name for name in missing if not name.startswith("pooler.")]}


def build_encoder(
    shape: str | Mapping[str, Any],
    texts: Iterable[str],
    sample: Sequence[Image.Image],
    vocab_size: int,
    seed: int,
    loss: Literal["clip", "siglip"] = "clip",
) -> Encoder:
    """A CLIP or SigLIP model with freshly drawn weights and a tokenizer trained on the texts.

    Args:
        shape: the name of a preset, or the fields of one, see :func:`presets` and :func:`read_shape`.
        texts: the captions; the tokenizer's merges are learnt from them.
        sample: some of the images; they are normalised by the mean and deviation of these.
        vocab_size: size of the vocabulary.
        seed: draws the weights.
        loss: what it is trained with, which decides the architecture: ``CLIPModel`` or ``SiglipModel``.

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
    mean, deviation = _channel_statistics(sample)
    if loss == "siglip":
        # As SigLIP's own: every text is padded to the full length, and the padding is not masked.
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = ["input_ids"]
        # SigLIP squeezes images to a square; so nothing at the edges is lost.
        processor = SiglipImageProcessor(
            size={"height": size, "width": size}, image_mean=mean, image_std=deviation
        )
    else:
        processor = CLIPImageProcessor(
            size={"shortest_edge": size},
            crop_size={"height": size, "width": size},
            image_mean=mean,
            image_std=deviation,
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
    # As in the original CLIP. transformers draws them at a standard deviation of 0.02, small beside the
    # patches' embeddings, so that a young tower hardly sees where a patch lies.
    positions = model.vision_model.embeddings.position_embedding.weight
    torch.nn.init.normal_(positions, std=vision["hidden_size"] ** -0.5)
    return model


def _siglip(shape: Mapping[str, Any], tokenizer: Any) -> Any:
    """The image tower's pooled output is the feature; the text tower's head maps to its width."""
    from transformers import SiglipConfig, SiglipModel

    text = {**_text_config(shape, tokenizer), "projection_size": shape["vision"]["hidden_size"]}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=shape["vision"]))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(SIGLIP_SCALE))
        model.logit_bias.fill_(SIGLIP_BIAS)
    return model


def _channel_statistics(images: Sequence[Image.Image]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, 0 to 1, over all pixels of the images."""
    import numpy as np

    pixels = np.concatenate([np.asarray(image, dtype=np.float64).reshape(-1, 3) for image in images]) / 255
    return pixels.mean(axis=0).round(4).tolist(), pixels.std(axis=0).clip(min=1e-3).round(4).tolist()
