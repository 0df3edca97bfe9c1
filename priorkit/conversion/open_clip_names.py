"""open_clip's tensors under the names of transformers' CLIP and SigLIP.

open_clip keeps the three attention projections in one matrix, in its own towers and in timm's; timm's attention
pooling has two matrices where transformers has one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from priorkit.conversion.tensors import NewTensor

_OUTSIDE_LAYERS = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.trunk.cls_token": "vision_model.embeddings.class_embedding",
    "visual.trunk.pos_embed": "vision_model.embeddings.position_embedding.weight",
    "visual.trunk.patch_embed.proj": "vision_model.embeddings.patch_embedding",
    "visual.trunk.norm_pre": "vision_model.pre_layrnorm",
    "visual.trunk.norm": "vision_model.post_layernorm",
    "visual.trunk.attn_pool.latent": "vision_model.head.probe",
    "visual.trunk.attn_pool.proj": "vision_model.head.attention.out_proj",
    "visual.trunk.attn_pool.norm": "vision_model.head.layernorm",
    "visual.trunk.attn_pool.mlp.fc1": "vision_model.head.mlp.fc1",
    "visual.trunk.attn_pool.mlp.fc2": "vision_model.head.mlp.fc2",
    "visual.head.proj": "visual_projection",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_model.head",
}
"""Names of tensors, and of modules with a weight and a bias."""

_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_IN_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.proj": "self_attn.out_proj",
}
"""Modules of a layer: open_clip's and timm's."""

_FUSED = {
    "attn.in_proj_weight": "weight",
    "attn.in_proj_bias": "bias",
    "attn.qkv.weight": "weight",
    "attn.qkv.bias": "bias",
}
_LAYERS = {
    "visual.transformer.resblocks.": "vision_model",
    "visual.trunk.blocks.": "vision_model",
    "transformer.resblocks.": "text_model",
}
"""What the names of layers begin with, and their tower."""

_POOL = "visual.trunk.attn_pool."
_BUFFERS = ("attn_mask", "input_resolution", "context_length", "vocab_size", "position_ids")


def renamed(tensors: Mapping[str, NewTensor], scalar: tuple[int, ...]) -> Iterator[tuple[str, NewTensor]]:
    """The tensors under transformers' names; those without a place keep theirs.

    Args:
        tensors: of open_clip, by name.
        scalar: shape of the scale and the bias of the logits: ``()`` in CLIP, ``(1,)`` in SigLIP.
    """
    for name, tensor in tensors.items():
        # The text tower of models with ``custom_text`` is a part of its own.
        plain = name.removeprefix("text.")
        module, _, kind = plain.rpartition(".")
        lead = next((lead for lead in _LAYERS if plain.startswith(lead)), None)
        if plain in _BUFFERS or kind in _BUFFERS:
            continue
        if plain in _TRANSPOSED:
            yield _TRANSPOSED[plain], _derived(tensor, tensor.shape[::-1], lambda value: value.T)
        elif plain in _OUTSIDE_LAYERS:
            new = _OUTSIDE_LAYERS[plain]
            yield new, _shaped(tensor, _shape(plain, tensor.shape, scalar))
        elif module in _OUTSIDE_LAYERS:
            yield f"{_OUTSIDE_LAYERS[module]}.{kind}", tensor
        elif module == f"{_POOL}q" and f"{_POOL}kv.{kind}" in tensors:
            joined = _joined(tensor, tensors[f"{_POOL}kv.{kind}"])
            yield f"vision_model.head.attention.in_proj_{kind}", joined
        elif module == f"{_POOL}kv" and f"{_POOL}q.{kind}" in tensors:
            continue
        elif lead is not None:
            yield from _layer(_LAYERS[lead], plain.removeprefix(lead), tensor)
        else:
            yield name, tensor


def _shape(name: str, shape: tuple[int, ...], scalar: tuple[int, ...]) -> tuple[int, ...]:
    """A tensor's shape in transformers; timm's have a dimension of the batch."""
    if name in ("logit_scale", "logit_bias"):
        return scalar
    if name == "visual.trunk.cls_token":
        return shape[-1:]
    return shape[-2:] if name == "visual.trunk.pos_embed" else shape


def _layer(tower: str, name: str, tensor: NewTensor) -> Iterator[tuple[str, NewTensor]]:
    """A tensor of a layer; the fused projection is split in three."""
    number, _, rest = name.partition(".")
    lead = f"{tower}.encoder.layers.{number}"
    if rest in _FUSED:
        third = tensor.shape[0] // 3
        for index, letter in enumerate("qkv"):
            part = _derived(
                tensor, (third, *tensor.shape[1:]), lambda value, at=index * third: value[at : at + third]
            )
            yield f"{lead}.self_attn.{letter}_proj.{_FUSED[rest]}", part
        return
    module, _, kind = rest.rpartition(".")
    yield f"{lead}.{_IN_LAYERS.get(module, module)}.{kind}", tensor


def _shaped(tensor: NewTensor, shape: tuple[int, ...]) -> NewTensor:
    return _derived(tensor, shape, lambda value: value.reshape(shape))


def _joined(first: NewTensor, second: NewTensor) -> NewTensor:
    shape = (first.shape[0] + second.shape[0], *first.shape[1:])
    return NewTensor(first.dtype, shape, lambda: torch.cat([first.read(), second.read()]))


def _derived(tensor: NewTensor, shape: tuple[int, ...], change: Callable[[Tensor], Tensor]) -> NewTensor:
    return NewTensor(tensor.dtype, shape, lambda: change(tensor.read()))
