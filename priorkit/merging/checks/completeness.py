"""Whether a model's file holds all tensors that its architecture has: a merge would pass the gap on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import Problems
from priorkit.merging.lora import listed
from priorkit.merging.tied_embeddings import find_pair, tied_in_config

_LAYER = re.compile(r"(.*?\b(?:layers|layer|h|blocks|block|resblocks))\.(\d+)\.(.+)")
_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")


def check_complete(
    label: str, folder: Path, tensors: Mapping[str, Any], config: Mapping[str, Any], problems: Problems
) -> None:
    """Refuse a model that lacks tensors, naming them.

    Names and configuration are checked first. Only where they look odd, as in models of several sorts of
    layers, transformers builds the model without memory and says which names it misses.

    Args:
        label: how messages name the model.
        folder: the model.
        tensors: tensors of its files, by name.
        config: its configuration.
        problems: collects what is missing.
    """
    if not _suspicious(tensors, config):
        return
    missing = _missing_in_transformers(folder, config)
    if missing:
        problems.add(
            f"its files lack tensors that a model of type '{config.get('model_type')}' has: {listed(missing)}",
            where=label,
            hint="save it again, or download the missing part",
        )


def _suspicious(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether layers differ in what they hold, or layers, embeddings, last norm or head seem to be missing."""
    layers: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    outside: list[str] = []
    for name in tensors:
        if match := _LAYER.fullmatch(name):
            layers[match[1]][int(match[2])].add(match[3])
        else:
            outside.append(name)
    for numbered in layers.values():
        if sorted(numbered) != list(range(len(numbered))):
            return True
        if len({frozenset(names) for names in numbered.values()}) > 1:
            return True
        if _unpaired(next(iter(numbered.values()))):
            return True
    counts = Counter(len(numbered) for numbered in layers.values())
    if any(count not in counts for count in _layer_counts(config)):
        return True
    if not _is_language_model(config):
        return False
    pair = find_pair(tensors, {**config, "tie_word_embeddings": None})
    headless = pair is not None and pair.head not in tensors and tied_in_config(config) is False
    normed = any("norm" in name or "ln_f" in name for name in outside)
    return pair is None or headless or not normed


def _unpaired(names: Iterable[str]) -> bool:
    """Whether one of the tensors that come together in a layer is missing from all of them."""
    modules = {name.rpartition(".")[0].rpartition(".")[2] for name in names}
    groups = ({"q_proj", "k_proj", "v_proj"}, {"up_proj", "down_proj"}, {"fc1", "fc2"}, {"c_attn", "c_proj"})
    return any(modules & group and not group <= modules for group in groups)


def _layer_counts(config: Mapping[str, Any]) -> list[int]:
    nested = [config.get(key) for key in ("text_config", "vision_config")]
    tables = [config, *(cast("dict[str, Any]", part) for part in nested if isinstance(part, dict))]
    return [table[key] for table in tables for key in _COUNTS if isinstance(table.get(key), int)]


def _is_language_model(config: Mapping[str, Any]) -> bool:
    return any(
        re.search("ForCausalLM|LMHead|ForConditionalGeneration", name)
        for name in config.get("architectures") or ()
    )


def _missing_in_transformers(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Names that transformers does not find; empty where it does not know the model."""
    import torch
    import transformers
    from transformers.utils import logging as transformers_logging

    known = config.get("architectures") or ()
    kind: Any = getattr(transformers, str(known[0]), None) if known else None
    if kind is None:
        return []
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        loaded: Any = kind.from_pretrained(
            folder, device_map="meta", output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    except Exception:  # another reason than a gap, which loading the result would show too
        return []
    finally:
        transformers_logging.set_verbosity(level)
    return sorted(loaded[1]["missing_keys"])
