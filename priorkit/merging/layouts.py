"""Layers stored input first (transformers' ``Conv1D``): which they are, and LoRAs laid out to match.

PEFT decides by the layer's class, whatever ``fan_in_fan_out`` says: the field is set for the last layer that was
wrapped, so an adapter of GPT-2's projections and its head may say either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.lora import Lora

_TYPES = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder"})
_LAYERS = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


def has_transposed_layers(config: Mapping[str, Any]) -> bool:
    """Whether a model, or a part of it, is of a type with layers stored input first."""
    parts = [cast("dict[str, Any]", value) for value in config.values() if isinstance(value, dict)]
    return config.get("model_type") in _TYPES or any(has_transposed_layers(part) for part in parts)


def is_transposed(name: str, transposed_layers: bool) -> bool:
    """Whether the weight of this name is stored input first."""
    return transposed_layers and name.removesuffix(".weight").rpartition(".")[2] in _LAYERS


def orient_loras(
    loras: Mapping[str, Lora], reference: Mapping[str, TensorInfo], config: Mapping[str, Any], flag: bool
) -> dict[str, Lora]:
    """Lay out the LoRAs of linear layers as the reference stores their weights.

    Args:
        loras: by the reference's names.
        reference: the tensors to change.
        config: the reference's configuration.
        flag: the adapter's ``fan_in_fan_out``, which decides where neither the type of the model nor the
            shape of any weight does.
    """
    transposed_layers = has_transposed_layers(config)
    linear = {name for name, lora in loras.items() if lora.layout == "linear" and name in reference}
    turned = {name for name in linear if reference[name].shape == loras[name].shape[::-1]}
    square = {name for name in turned if reference[name].shape == loras[name].shape}
    fits_as_it_is = any(reference[name].shape == loras[name].shape for name in linear - square)
    oriented = dict(loras)
    for name in turned:
        if transposed_layers:
            turn = is_transposed(name, transposed_layers)
        else:
            turn = name not in square or (flag and not fits_as_it_is)
        if turn:
            oriented[name] = replace(loras[name], layout="transposed")
    return oriented
