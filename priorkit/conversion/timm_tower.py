"""timm's vision transformers that are equal to a tower of transformers: what they are, from their names.

A checkpoint of open_clip names the model of timm; timm itself says what that is, without weights.

- ``vit_*_clip_*``: a class token, a LayerNorm before the layers and a patch embedding without bias, as in CLIP.
- ``vit_*_siglip_*``: no class token, and attention pooling, as in SigLIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from priorkit.core.errors import InputError, library_reads

SUPPORTED = (
    "CLIP with plain transformers or with timm's vit_*_clip_* as vision tower, and SigLIP with timm's "
    "vit_*_siglip_*, can be converted"
)
"""Which models of open_clip there is a class of transformers for."""


def _with(modules: str, kinds: str) -> set[str]:
    return {f"{module}.{kind}" for module in modules.split() for kind in kinds.split()}


_BLOCK = _with("norm1 attn.qkv attn.proj norm2 mlp.fc1 mlp.fc2", "weight bias")
_OUTSIDE_BLOCKS = {
    "clip": {"cls_token", "pos_embed", "patch_embed.proj.weight", *_with("norm_pre norm", "weight bias")},
    "siglip": {
        "pos_embed",
        "attn_pool.latent",
        *_with("patch_embed.proj norm", "weight bias"),
        *_with(
            "attn_pool." + " attn_pool.".join(("q", "kv", "proj", "norm", "mlp.fc1", "mlp.fc2")),
            "weight bias",
        ),
    },
}
_POOLING = {"clip": "token", "siglip": "map"}
_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh", "QuickGELU": "quick_gelu"}
"""transformers' names of the activations of torch and timm."""


def _activation(module: Any) -> str | None:
    """transformers' name of an activation; None of one that it is not known to have."""
    tanh = getattr(module, "approximate", "none") == "tanh"
    return _ACTIVATIONS.get("GELUTanh" if tanh else type(module).__name__)


@dataclass(frozen=True)
class TimmTowerLayout:
    """A vision transformer of timm.

    Attributes:
        family: whose vision tower it is equal to.
        settings: those of a vision configuration of transformers, but for the size of images.
    """

    family: Literal["clip", "siglip"]
    settings: dict[str, Any]


def timm_tower(vision: Mapping[str, Any], where: str) -> TimmTowerLayout:
    """What a vision tower of open_clip is that timm implements.

    Args:
        vision: ``vision_cfg`` of open_clip.
        where: its place for messages.

    Raises:
        InputError: timm does not know the model, or transformers has no class that computes the same.
    """
    import timm

    name = str(vision["timm_model_name"])
    # With a colon, timm would load the model from elsewhere.
    if ":" in name or not timm.is_model(name):
        raise InputError(
            f"vision_cfg.timm_model_name is '{name}', which timm {timm.__version__} does not know",
            where=where,
        )
    with library_reads(f"timm cannot make '{name}'", where), torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    pooling = vision.get("timm_pool", "avg") or getattr(model, "global_pool", None)
    family = next((family for family in _OUTSIDE_BLOCKS if _is_equal(model, family)), None)
    if family is None:
        raise _refused(
            f"vision_cfg.timm_model_name: timm's '{name}' equals no vision tower of transformers' CLIP or SigLIP",
            where,
        )
    if pooling != _POOLING[family]:
        raise _refused(
            f"vision_cfg.timm_pool: '{name}' with pooling '{pooling}' instead of '{_POOLING[family]}'", where
        )
    layer = model.blocks[0]
    settings = {
        "hidden_size": int(model.embed_dim),
        "intermediate_size": int(layer.mlp.fc1.out_features),
        "num_hidden_layers": len(model.blocks),
        "num_attention_heads": int(layer.attn.num_heads),
        "patch_size": int(model.patch_embed.patch_size[0]),
        "hidden_act": _activation(layer.mlp.act),
        "layer_norm_eps": float(layer.norm1.eps),
    }
    return TimmTowerLayout(cast("Literal['clip', 'siglip']", family), settings)


def _is_equal(model: Any, family: str) -> bool:
    """Whether a model computes what a family's vision tower does: the same parts in the same order."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import Block, VisionTransformer

    if type(model) is not VisionTransformer or model.pool_include_prefix:
        return False
    if not all(
        type(block) is Block and type(block.attn) is Attention and type(block.mlp) is Mlp
        for block in model.blocks
    ):
        return False
    # Scales of layers, norms of queries and keys, registers and missing biases all show in the names.
    layers = {f"blocks.{number}.{name}" for number in range(len(model.blocks)) for name in _BLOCK}
    if {name for name, _ in model.named_parameters()} != layers | _OUTSIDE_BLOCKS[family]:
        return False
    mlps: list[Any] = [block.mlp for block in model.blocks]
    if model.attn_pool is not None:
        mlps.append(model.attn_pool.mlp)
    activations = {_activation(mlp.act) for mlp in mlps}
    return len(activations) == 1 and None not in activations and len({*model.patch_embed.patch_size}) == 1


def _refused(what: str, where: str) -> InputError:
    return InputError(
        what,
        where=where,
        hint=f"{SUPPORTED}; else use the model in transformers' format, or its image tower from timm",
    )
