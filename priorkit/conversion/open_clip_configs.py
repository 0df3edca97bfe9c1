"""Model configurations of open_clip as those of transformers' CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from priorkit.conversion.timm_tower import SUPPORTED, TimmTowerLayout, timm_tower
from priorkit.core.errors import InputError

_LAYER_NORM_EPS = 1e-5
_PLAIN_VISION = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"}
_TIMM_VISION = {"image_size", "timm_model_name", "timm_pool", "timm_proj"}
_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_SIGLIP_TEXT = {"no_causal_mask", "proj_bias", "pool_type", "norm_kwargs", "act_kwargs"}
_WITHOUT_EFFECT = {
    "output_tokens", "hf_tokenizer_name", "tokenizer_kwargs", "block_type", "timm_model_pretrained", "timm_drop",
    "timm_drop_path", "pad_id",
}  # fmt: skip
"""Settings of training, of other text towers and of parts that are not written."""

_DEFAULTS = {
    "vision_cfg.pool_type": "tok",
    "vision_cfg.pos_embed_type": "learnable",
    "text_cfg.pool_type": "argmax",
    "text_cfg.proj_type": "linear",
}
"""open_clip's defaults that are no None, False or 0, where they are what CLIP has."""

_Settings = Mapping[str, Any]


def configuration(model: _Settings, where: str) -> Any:
    """The configuration of transformers' CLIP or SigLIP.

    Args:
        model: ``model_cfg`` of open_clip.
        where: its place for messages.

    Raises:
        InputError: a part that neither of them has.
    """
    vision, text = (cast("_Settings", model.get(key) or {}) for key in ("vision_cfg", "text_cfg"))
    if "embed_dim" not in model or not vision or not text:
        raise InputError("no model configuration of open_clip (embed_dim, vision_cfg, text_cfg)", where=where)
    tower = timm_tower(vision, where) if vision.get("timm_model_name") else None
    if tower is not None and tower.family == "siglip":
        return _siglip_config(model, tower, where)
    return _clip_config(model, tower, where)


def _clip_config(model: _Settings, tower: TimmTowerLayout | None, where: str) -> Any:
    from transformers import CLIPConfig

    vision, text = model["vision_cfg"], model["text_cfg"]
    other = _others("vision_cfg", vision, _PLAIN_VISION if tower is None else _TIMM_VISION)
    other |= _others("text_cfg", text, _PLAIN_TEXT)
    if tower is None and isinstance(vision.get("layers"), list):
        other["vision_cfg.layers"] = vision["layers"]
    if tower is not None and vision.get("timm_proj", "linear") != "linear":
        other["vision_cfg.timm_proj"] = vision["timm_proj"]
    _refuse(other, "CLIP", where)
    common = {
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "layer_norm_eps": _LAYER_NORM_EPS,
        "projection_dim": int(model["embed_dim"]),
    }
    vocabulary = int(text.get("vocab_size", 49408))
    tokens = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1}
    own = tower.settings if tower is not None else _vision_transformer(vision)
    return CLIPConfig(
        projection_dim=int(model["embed_dim"]),
        vision_config={**common, **own, "image_size": _image_size(vision)},
        text_config={**common, **_text_transformer(text), **tokens},
    )


def _siglip_config(model: _Settings, tower: TimmTowerLayout, where: str) -> Any:
    from transformers import SiglipConfig

    vision, text = model["vision_cfg"], model["text_cfg"]
    other = _others("vision_cfg", vision, _TIMM_VISION)
    other |= _others("text_cfg", text, _PLAIN_TEXT | _SIGLIP_TEXT)
    # What SigLIP has where open_clip's default is something else.
    needed = (
        ("vision_cfg", "timm_proj", "linear", ("none", "", None)),
        ("text_cfg", "no_causal_mask", False, (True,)),
        ("text_cfg", "proj_bias", False, (True,)),
        ("text_cfg", "pool_type", "argmax", ("last",)),
    )
    for part, name, default, allowed in needed:
        value = model[part].get(name, default)
        if value not in allowed:
            other[f"{part}.{name}"] = value
    norm, activation = text.get("norm_kwargs") or {}, text.get("act_kwargs") or {}
    if norm.keys() - {"eps"}:
        other["text_cfg.norm_kwargs"] = norm
    if activation.keys() - {"approximate"} or (activation and model.get("quick_gelu")):
        other["text_cfg.act_kwargs"] = activation
    _refuse(other, "SigLIP", where)
    width = tower.settings["hidden_size"]
    if width != int(model["embed_dim"]):
        raise InputError(
            f"embed_dim is {model['embed_dim']}, but SigLIP's image features are as wide as its tower: {width}",
            where=where,
        )
    tanh = activation.get("approximate") == "tanh"
    plain = "quick_gelu" if model.get("quick_gelu") else "gelu"
    return SiglipConfig(
        vision_config={**tower.settings, "image_size": _image_size(vision)},
        text_config={
            **_text_transformer(text),
            "hidden_act": "gelu_pytorch_tanh" if tanh else plain,
            "layer_norm_eps": float(norm.get("eps", _LAYER_NORM_EPS)),
            "projection_size": int(model["embed_dim"]),
            # Of the tokenizer, which is not read yet; SigLIP's defaults are outside its vocabulary.
            "bos_token_id": None,
            "eos_token_id": None,
        },
    )


def _vision_transformer(vision: _Settings) -> dict[str, Any]:
    width = int(vision.get("width", 768))
    return {
        "hidden_size": width,
        "intermediate_size": int(width * float(vision.get("mlp_ratio", 4.0))),
        "num_hidden_layers": int(vision.get("layers", 12)),
        "num_attention_heads": width // int(vision.get("head_width", 64)),
        "patch_size": int(vision.get("patch_size", 16)),
    }


def _text_transformer(text: _Settings) -> dict[str, Any]:
    width = int(text.get("width", 512))
    return {
        "hidden_size": width,
        "intermediate_size": int(width * float(text.get("mlp_ratio", 4.0))),
        "num_hidden_layers": int(text.get("layers", 12)),
        "num_attention_heads": int(text.get("heads", 8)),
        "max_position_embeddings": int(text.get("context_length", 77)),
        "vocab_size": int(text.get("vocab_size", 49408)),
    }


def _image_size(vision: _Settings) -> int:
    size = vision.get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def _others(part: str, settings: _Settings, known: set[str]) -> dict[str, Any]:
    """The settings that are switched on and unknown, by their full names."""
    return {
        f"{part}.{name}": value
        for name, value in settings.items()
        if value and name not in known | _WITHOUT_EFFECT and value != _DEFAULTS.get(f"{part}.{name}")
    }


def _refuse(other: Mapping[str, Any], model: str, where: str) -> None:
    """Refuse settings that a model of transformers does not have.

    Raises:
        InputError: there are any.
    """
    if other:
        named = ", ".join(f"{name} = {value!r}" for name, value in sorted(other.items()))
        raise InputError(
            f"transformers' {model} does not have {named}",
            where=where,
            hint=f"{SUPPORTED}; else use the model in transformers' format, or its image tower from timm",
        )
