"""Language models: any causal LM that transformers builds; presets are Llama-shaped."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.models.folder import read_config, read_json, tensor_files

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def presets() -> dict[str, dict[str, Any]]:
    """The presets by name: fields of ``LlamaConfig``."""
    text = resources.files("priorkit.models.language").joinpath("presets.toml").read_text(encoding="utf-8")
    return tomli.loads(text)


def preset_fields(name: str) -> dict[str, Any]:
    """One preset.

    Raises:
        UsageError: there is none of that name.
    """
    known = presets()
    if name not in known:
        raise UsageError(f"no preset '{name}'", where="--preset", hint=nearest(name, known))
    return known[name]


def parameter_count(fields: dict[str, Any], vocab_size: int) -> int:
    """Parameters of a Llama-shaped model, from its configuration alone; 0 where that does not tell.

    For other shapes with the same fields (GPT-NeoX, whose MLP has two matrices) it is an upper bound.
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
    """A model configuration of given fields for a tokenizer.

    Args:
        fields: those of a ``config.json``; ``model_type`` is ``llama`` where absent.
        tokenizer: gives vocabulary size and special tokens.

    Raises:
        UsageError: a value that transformers refuses, or a vocabulary that is too small.
    """
    from transformers import AutoConfig

    values = {
        name: value for name, value in fields.items() if name not in ("architectures", "torch_dtype", "dtype")
    }
    kind = values.pop("model_type", "llama")
    given = values.get("vocab_size")
    if given is not None and given < len(tokenizer):
        raise UsageError(
            f"vocab_size {given} is smaller than the tokenizer's {len(tokenizer)}",
            hint="leave it out, or raise it",
        )
    values["vocab_size"] = given or len(tokenizer)
    values.update(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    try:
        return AutoConfig.for_model(kind, **values)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the model configuration is not valid: {error}") from None


def build_llm(config: PretrainedConfig, seed: int) -> Any:
    """A causal LM with freshly drawn fp32 weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def check_llm(folder: Path) -> dict[str, Any]:
    """Check from headers that a folder is a causal LM.

    Returns:
        Its ``config.json``, sizes under Llama's names too.

    Raises:
        InputError: no model, no weights, or a model of another sort.
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
    """Sizes under Llama's names, where a family has its own: GPT-2's ``n_embd`` is ``hidden_size``."""
    if {"hidden_size", "max_position_embeddings"} <= set(config):
        return {}
    from transformers import CONFIG_MAPPING

    known = config["model_type"] in CONFIG_MAPPING
    names: dict[str, str] = CONFIG_MAPPING[config["model_type"]].attribute_map if known else {}
    return {name: config[own] for name, own in names.items() if own in config}


def load_llm(folder: Path, dtype: Any = None) -> Any:
    """Load a causal LM.

    Args:
        folder: in Hugging Face's layout.
        dtype: of the weights; fp32 where not given.

    Raises:
        InputError: transformers cannot load it, or its weights do not fit its configuration.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model, info = load_checked(AutoModelForCausalLM, folder, dtype=dtype or torch.float32)
    refuse_missing(info, folder)
    return model


def load_checked(auto: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    """``from_pretrained`` from local safetensors alone, with its report on keys.

    Raises:
        InputError: the model cannot be loaded.
    """
    try:
        return auto.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that refuse_missing can name them
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()
        raise InputError(
            f"the model cannot be loaded: {first[0] if first else error}", where=str(folder)
        ) from error


def refuse_missing(info: dict[str, Any], folder: Path) -> None:
    """Refuse a model some of whose weights would be random.

    Raises:
        InputError: naming missing and misfitting tensors.
    """
    missing, misfits = sorted(info.get("missing_keys", [])), info.get("mismatched_keys", [])
    if missing or misfits:
        names = [*missing, *(str(item[0] if isinstance(item, tuple) else item) for item in misfits)]
        raise InputError(
            f"{len(names)} tensors are missing or of another shape, such as {', '.join(names[:3])}",
            where=str(folder),
        )


def read_model_config(path: Path) -> dict[str, Any]:
    """A ``config.json`` given by the user.

    Raises:
        InputError: it cannot be read.
    """
    return read_json(path)
