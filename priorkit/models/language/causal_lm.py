"""Causal language models of transformers: presets, configuration, building, checks, loading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.core.errors import InputError, UsageError, library_reads
from priorkit.models.folder import read_config, tensor_files
from priorkit.models.presets import choose_preset, read_presets
from priorkit.models.pretrained import load_pretrained, refuse_missing_tensors

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def presets() -> dict[str, dict[str, Any]]:
    """The presets by name, as fields of ``LlamaConfig``."""
    return read_presets("priorkit.models.language")


def preset_fields(name: str) -> dict[str, Any]:
    """The fields of a preset.

    Raises:
        UsageError: there is no preset of that name.
    """
    return choose_preset(presets(), name)


def parameter_count(fields: dict[str, Any], vocab_size: int) -> int:
    """Number of parameters of a Llama-shaped model, from its configuration; 0 if a size is missing.

    For other models with the same fields (GPT-NeoX, whose MLP has two matrices) it is an upper bound.
    """
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    if any(not fields.get(name) for name in names):
        return 0
    width, inner, heads, layers = (int(fields[name]) for name in names)
    groups = fields.get("num_key_value_heads") or heads
    head_width = fields.get("head_dim") or width // heads
    layer = 2 * width * head_width * (heads + groups) + 3 * width * inner + 2 * width
    tables = 1 if fields.get("tie_word_embeddings") else 2
    return layers * layer + width + tables * vocab_size * width


def build_config(fields: dict[str, Any], tokenizer: Any) -> PretrainedConfig:
    """A model configuration for a tokenizer.

    Args:
        fields: as in a ``config.json``; ``model_type`` is ``llama`` if absent.
        tokenizer: its size and special tokens become the model's.

    Raises:
        UsageError: transformers refuses a value, or the vocabulary is smaller than the tokenizer's.
    """
    from transformers import AutoConfig

    values = {
        name: value for name, value in fields.items() if name not in ("architectures", "torch_dtype", "dtype")
    }
    model_type = values.pop("model_type", "llama")
    vocab_size = values.get("vocab_size")
    if vocab_size is not None and not isinstance(vocab_size, int):
        raise UsageError(f"vocab_size should be a whole number, got {vocab_size!r}", where="config.json")
    if vocab_size is not None and vocab_size < len(tokenizer):
        raise UsageError(
            f"vocab_size {vocab_size} is smaller than the tokenizer's {len(tokenizer)}",
            hint="leave it out, or raise it",
        )
    values["vocab_size"] = vocab_size or len(tokenizer)
    values.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    try:
        with library_reads("the model configuration is not valid", "config.json"):
            return AutoConfig.for_model(model_type, **values)
    except InputError as error:
        raise UsageError(error.problems) from None


def build_llm(config: PretrainedConfig, seed: int) -> Any:
    """A causal LM with random fp32 weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def check_llm(folder: Path) -> dict[str, Any]:
    """Check from headers that a folder is a causal LM.

    Returns:
        Its ``config.json``, with sizes also under Llama's names.

    Raises:
        InputError: no model, no weights, or a model of another type.
    """
    config = read_config(folder)
    if "vision_config" in config or "text_config" in config:
        raise InputError(
            f"expected a language model, got '{config['model_type']}', which has a vision part",
            where=str(folder),
        )
    tensor_files(folder)
    return {**_common_names(config), **config}


def _common_names(config: dict[str, Any]) -> dict[str, Any]:
    """Sizes under Llama's names for families with other names: GPT-2's ``n_embd`` is ``hidden_size``."""
    if {"hidden_size", "max_position_embeddings"} <= set(config):
        return {}
    from transformers import CONFIG_MAPPING

    if config["model_type"] not in CONFIG_MAPPING:
        return {}
    names: dict[str, str] = CONFIG_MAPPING[config["model_type"]].attribute_map
    return {common: config[family] for common, family in names.items() if family in config}


def load_llm(folder: Path, dtype: Any = None) -> Any:
    """Load a causal LM.

    Args:
        folder: in Hugging Face's layout.
        dtype: of the weights; None for fp32.

    Raises:
        InputError: transformers cannot load it, or its weights do not fit its configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model, info = load_pretrained(AutoModelForCausalLM, folder, dtype=dtype or torch.float32)
    refuse_missing_tensors(info, folder)
    return model
