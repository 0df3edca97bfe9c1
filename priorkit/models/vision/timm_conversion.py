"""timm's plain vision transformers and image processors in transformers' format."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.models.vision.encoder import Encoder


def vit_from_timm(encoder: Encoder) -> tuple[Any, Any]:
    """A plain vision transformer of timm as transformers' ViT, checked to be equal on an image.

    transformers' wrapper of timm models returns feature maps without the class token, which LLaVA cannot read.

    Returns:
        The model and its configuration.

    Raises:
        InputError: the model is not a plain vision transformer, or the converted model gives other features.
    """
    from transformers import AutoModel, ViTConfig

    inner = encoder.model.timm_model
    name = type(inner).__name__
    unsupported = InputError(
        f"LLaVA cannot use timm's {name} of this shape: only plain vision transformers can be converted to ViT",
        hint="use the same model in transformers' format",
    )
    state = {key: value for key, value in inner.state_dict().items() if not key.startswith("head.")}
    blocks = len(getattr(inner, "blocks", ()))
    if name != "VisionTransformer" or not blocks or "pos_embed" not in state:
        raise unsupported
    width = int(state["pos_embed"].shape[-1])
    size, patch = inner.patch_embed.img_size, inner.patch_embed.patch_size
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=inner.blocks[0].attn.num_heads,
        intermediate_size=state["blocks.0.mlp.fc1.weight"].shape[0],
        image_size=int(size[0]),
        patch_size=int(patch[0]),
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        layer_norm_eps=float(inner.blocks[0].norm1.eps),
    )
    tower = AutoModel.from_config(config)
    renamed = {
        new: value for key, tensor in state.items() for new, value in _vit_tensors(key, tensor).items()
    }
    missing = {key for key in set(tower.state_dict()) - set(renamed) if not key.startswith("pooler.")}
    if missing or set(renamed) - set(tower.state_dict()):
        raise unsupported
    tower.load_state_dict(renamed, strict=False)
    tower.eval()
    height, columns = encoder.prepared_size()
    pixels = torch.linspace(0, 255, 3 * height * columns).view(1, 3, height, columns).to(torch.uint8)
    with torch.no_grad():
        converted = tower(pixel_values=encoder.normalize(pixels)).last_hidden_state
        original = inner.forward_features(encoder.normalize(pixels))
    if converted.shape != original.shape or not torch.allclose(converted, original, rtol=1e-3, atol=1e-3):
        raise unsupported
    return tower, config


def _vit_tensors(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor of timm's vision transformer under transformers' names; the fused projection is split in three."""
    outside_blocks = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
        "norm.weight": "layernorm.weight",
        "norm.bias": "layernorm.bias",
    }
    if name in outside_blocks:
        return {outside_blocks[name]: tensor}
    _, number, rest = name.split(".", 2) if name.startswith("blocks.") else ("", "", name)
    part, _, kind = rest.rpartition(".")
    if part == "attn.qkv":
        return {
            f"layers.{number}.attention.{letter}_proj.{kind}": value
            for letter, value in zip("qkv", tensor.chunk(3), strict=True)
        }
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "attn.proj": "attention.o_proj"}
    return {f"layers.{number}.{names.get(part, part)}.{kind}": tensor}


def savable_processor(processor: Any) -> Any:
    """A copy of an image processor; timm's, which ``AutoProcessor`` cannot load, as a CLIP image processor."""
    data = getattr(processor, "data_config", None)
    if data is None:
        return copy.deepcopy(processor)
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessor

    _, height, width = data["input_size"]
    filters = {"bilinear": Resampling.BILINEAR, "lanczos": Resampling.LANCZOS, "nearest": Resampling.NEAREST}
    common: dict[str, Any] = {
        "resample": filters.get(data["interpolation"], Resampling.BICUBIC),
        "image_mean": list(data["mean"]),
        "image_std": list(data["std"]),
    }
    if data.get("crop_mode", "center") != "center":
        return CLIPImageProcessor(size={"height": height, "width": width}, do_center_crop=False, **common)
    edge = math.floor(min(height, width) / float(data.get("crop_pct") or 1))
    return CLIPImageProcessor(
        size={"shortest_edge": edge}, crop_size={"height": height, "width": width}, **common
    )
