"""A language model as an input of a merge into a multimodal model: seen as one that has the others' vision part.

What the language model says nothing about (encoder, projector, rows of a vocabulary that the multimodal model has
grown) stays as it is in the reference.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

from priorkit.core.errors import Problems
from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.names import NameMap

logger = logging.getLogger(__name__)

_LANGUAGE = frozenset({"language_model", "text_model"})
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight", "wte.weight")

_BARE = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3", "qwen3_vl_moe_text": "qwen3_moe",
}  # fmt: skip
"""Language parts whose type has a name of its own, and the language model of the same tensors."""

Models = dict[str, dict[str, TensorInfo]]
Configs = dict[str, dict[str, Any]]


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Whether a configuration has a language part and a vision part, and writes text."""
    writes = any("Generation" in name or "CausalLM" in name for name in config.get("architectures") or ())
    return writes and isinstance(config.get("text_config"), dict) and "vision_config" in config


def see_as_multimodal(
    models: Models, configs: Configs, reference: str | None, problems: Problems
) -> set[str]:
    """Give language models that are merged into a multimodal one the tensors and settings they lack, in place.

    Args:
        models: tensors of all models by label; changed.
        configs: their configurations; changed.
        reference: label of the model that the result is written like; None where only adapters are merged.
        problems: collects language models of another type than the reference's language part.

    Returns:
        The labels of the language models.
    """
    if reference is None or reference not in configs or not is_multimodal(configs[reference]):
        return set()
    whole = configs[reference]
    text = cast("dict[str, Any]", whole["text_config"])
    seen: set[str] = set()
    for label in list(configs):
        config = configs[label]
        if label == reference or "vision_config" in config:
            continue
        if config["model_type"] != _language_type(text):
            problems.add(
                f"a language model of type '{config['model_type']}', the language part of {reference} is "
                f"'{text.get('model_type')}'",
                where=label,
                hint="models of one architecture can be merged",
            )
            continue
        seen.add(label)
        models[label] = _completed(models[label], models[reference])
        # What is written in the reference's language part decides; defaults are completed for both alike.
        parts = {**config, "model_type": text.get("model_type", config["model_type"])}
        tied = config.get("tie_word_embeddings")
        configs[label] = {
            **whole,
            "text_config": parts,
            **({} if tied is None else {"tie_word_embeddings": tied}),
        }
    return seen


def _language_type(text: Mapping[str, Any]) -> str:
    """The type of the bare language model that has the tensors of a language part."""
    kind = str(text.get("model_type", ""))
    return _BARE.get(kind, kind)


def _completed(
    tensors: Mapping[str, TensorInfo], reference: Mapping[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """The language model's tensors by the reference's names, and the reference's own outside its language part.

    Tensors of the language part that the language model lacks stay missing, so that they are reported.
    """
    names = NameMap(reference)
    found: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        stored = name if name in reference else names.find(name)
        found[stored if stored is not None and stored not in found else name] = info
    for name, info in reference.items():
        if name not in found and not _LANGUAGE & set(name.split(".")) and not name.endswith("lm_head.weight"):
            found[name] = info
    return found


def is_grown(name: str, shape: tuple[int, ...], reference: tuple[int, ...]) -> bool:
    """Whether a table of tokens has only the first rows of the reference's."""
    return (
        name.endswith(_EMBEDDINGS)
        and len(shape) == len(reference)
        and shape[1:] == reference[1:]
        and shape[0] < reference[0]
    )
