"""What a format's module works out from headers: the model's kind, its tensors, and what is written with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from priorkit.conversion.tensors import NewTensor
from priorkit.core.errors import InputError, library_reads
from priorkit.models.pretrained import refuse_missing_tensors


@dataclass(frozen=True)
class Conversion:
    """A conversion that is ready to be carried out.

    Attributes:
        kind: of artifact: ``llm``, ``encoder`` or ``mllm``.
        source: what is converted, in words.
        tensors: those of the new model by name; a function, as a format may have to read them all.
        bytes: their expected size.
        write_rest: writes configuration, tokenizer and image processor into a folder.
        file: the file of the weights; its name is what their shards begin with.
    """

    kind: str
    source: str
    tensors: Callable[[], Mapping[str, NewTensor]]
    bytes: int
    write_rest: Callable[[Path], None]
    file: str = "model.safetensors"


def check_fit(kind: str, config: Any, tensors: Mapping[str, NewTensor], where: str) -> set[str]:
    """Check that tensors are those of a model, from names and shapes.

    Args:
        kind: of artifact.
        config: the model's, of transformers.
        tensors: by name.
        where: the place for the message.

    Returns:
        The names of tensors that transformers does not use.

    Raises:
        InputError: naming tensors that are missing or of another shape.
    """
    model_class = _model_class(kind, config)
    empty = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in tensors.items()
    }
    with library_reads("the weights do not fit the configuration", where):
        _, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=empty,
            device_map="meta",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    report = dict(info)
    # As where encoders are loaded: some checkpoints have no pooler, and the class token is the feature.
    if kind == "encoder":
        report["missing_keys"] = {name for name in info["missing_keys"] if not name.startswith("pooler.")}
    refuse_missing_tensors(report, Path(where))
    return {str(name) for name in info["unexpected_keys"]}


def _model_class(kind: str, config: Any) -> Any:
    """The class of transformers that a configuration is for."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING

    mappings: dict[str, Any] = {
        "llm": MODEL_FOR_CAUSAL_LM_MAPPING,
        "mllm": MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
        "encoder": MODEL_MAPPING,
    }
    found = mappings[kind][type(config)]
    return found[0] if isinstance(found, tuple | list) else found


def kind_of(config: Any, where: str) -> str:
    """The kind of artifact that a configuration of transformers describes.

    Raises:
        InputError: none of them.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_MAPPING

    dual = hasattr(config, "vision_config") and hasattr(config, "text_config")
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and (dual or "vision_config" in config.to_dict()):
        return "mllm"
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "llm"
    if type(config) in MODEL_MAPPING:
        return "encoder"
    raise InputError(f"transformers has no model for '{config.model_type}'", where=where)
