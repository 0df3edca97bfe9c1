"""LoRA adapters in PEFT's format: reading and writing.

A module's delta is ``left @ right`` in the orientation of the stored weight, scale included, so that all
sorts of layers (linear, GPT-2's transposed ones, embeddings, convolutions) are handled alike.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problems
from priorkit.core.safetensors_header import TensorInfo, read_header
from priorkit.merging.names import PEFT_PREFIX
from priorkit.merging.tensors import FLOATS, TensorReader, narrow, write_file
from priorkit.models.folder import read_json

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

PEFT_ALPHA = 8
"""PEFT's ``lora_alpha`` where a configuration has none (``LoraConfig``)."""

Layout = Literal["linear", "transposed", "embedding", "convolution"]
Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Lora:
    """One module's LoRA on disk.

    Attributes:
        a: PEFT's ``lora_A``, or ``lora_embedding_A``.
        b: PEFT's ``lora_B``, or ``lora_embedding_B``.
        scale: ``alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilised LoRA.
        layout: orientation of the factors relative to the stored weight.
        magnitude: DoRA's magnitudes, which need the base's weights.
    """

    a: TensorInfo
    b: TensorInfo
    scale: float
    layout: Layout
    magnitude: TensorInfo | None = None

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight it changes."""
        if self.layout == "convolution":
            return (self.b.shape[0], *self.a.shape[1:])
        out, into = self.b.shape[0], self.a.shape[1]
        return (out, into) if self.layout == "linear" else (into, out)

    def factors(
        self, reader: TensorReader, precision: type[np.floating[Any]], scaled: bool = True
    ) -> tuple[Matrix, Matrix]:
        """``left [rows, r]`` and ``right [r, columns]`` of the stored weight seen as a matrix."""
        a = reader.shaped(self.a, precision)
        b = reader.shaped(self.b, precision)
        if self.layout == "linear" or self.layout == "convolution":
            left, right = b.reshape(b.shape[0], -1), a.reshape(a.shape[0], -1)
        else:
            left, right = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
        return (left * precision(self.scale) if scaled else left), right


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter's folder, known from its headers.

    Attributes:
        folder: where it is.
        config: its ``adapter_config.json``.
        modules: module path in memory -> its LoRA.
        saved: full tensors (``modules_to_save``, trained biases), by name in memory.
        base_layers: copies of base weights that PEFT stores next to LoRAs of embeddings.
    """

    folder: Path
    config: dict[str, Any]
    modules: dict[str, Lora]
    saved: dict[str, TensorInfo]
    base_layers: dict[str, TensorInfo] = field(default_factory=dict[str, TensorInfo])

    @property
    def base_name(self) -> str:
        """The base model as the adapter names it, or nothing."""
        return str(self.config.get("base_model_name_or_path") or "")

    def replaces(self, name: str) -> bool:
        """Whether a full tensor is of a module in ``modules_to_save``, which replaces the base's.

        PEFT loads other full tensors, such as embeddings saved along, into the base itself.
        """
        module = name.rpartition(".")[0]
        listed: Any = self.config.get("modules_to_save") or ()
        return any(module == known or module.endswith(f".{known}") for known in listed)


_UNSUPPORTED = {
    "lora_bias": "biases inside the LoRA",
    "alora_invocation_tokens": "activation by tokens (aLoRA), which no fixed weight can express",
    "use_qalora": "QALoRA's grouped inputs",
    "layer_replication": "replicated layers",
    "target_parameters": "LoRA on bare parameters",
    "trainable_token_indices": "trainable tokens",
    "arrow_config": "routing between adapters",
    "use_bdlora": "block-diagonal LoRA",
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


SHOWN = 40
"""Names listed in one problem; a mismatch of everything would fill the screen otherwise."""


def listed(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter in PEFT's format."""
    return (folder / CONFIG).is_file()


def read_adapter(folder: Path) -> LoraAdapter:
    """Read an adapter's configuration and headers.

    Raises:
        InputError: no safetensors, another sort of adapter, or parts that cannot be merged.
    """
    config = read_json(folder / CONFIG)
    problems = Problems(InputError)
    where = str(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        raise InputError(
            f"adapters of type LORA can be merged, this is {config.get('peft_type')}", where=where
        )
    for key, meaning in _UNSUPPORTED.items():
        if config.get(key):
            problems.add(f"'{key}' is set: {meaning}", where=where, hint="such an adapter cannot be merged")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        problems.add(
            f"it was initialised by {start}, which changes the base's weights",
            where=where,
            hint="save it again with PEFT's path_initial_model_for_weight_conversion",
        )
    problems.raise_if_any()
    pickled = folder / "adapter_model.bin"
    if not (folder / WEIGHTS).is_file() and pickled.is_file():
        raise InputError(
            "adapter_model.bin is a pickle, which is never opened here",
            where=str(folder),
            hint=f"convert it first: priorkit convert {folder} --out ADAPTER",
        )
    return _collect(folder, config, read_header(folder / WEIGHTS), problems)


_PART = re.compile(
    r"(.+?)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(\.weight)?"
)


def _collect(
    folder: Path, config: dict[str, Any], tensors: Mapping[str, TensorInfo], problems: Problems
) -> LoraAdapter:
    parts: dict[str, dict[str, TensorInfo]] = {}
    saved: dict[str, TensorInfo] = {}
    base_layers: dict[str, TensorInfo] = {}
    no_floats: list[str] = []
    unknown: list[str] = []
    for key, info in tensors.items():
        name = key.removeprefix(PEFT_PREFIX)
        if ".original_module." in name:
            continue  # the base's module under one of modules_to_save, which PEFT does not use
        if info.dtype not in FLOATS:
            no_floats.append(f"{key} ({info.dtype})")
        elif match := _PART.fullmatch(name):
            parts.setdefault(match[1], {})[match[2]] = info
        elif name.endswith(".base_layer.bias"):
            saved[name.replace(".base_layer.", ".")] = info  # trained, as ``bias`` in the configuration says
        elif ".base_layer." in name:
            base_layers[name.replace(".base_layer.", ".")] = info
        elif "lora_" in name:
            unknown.append(key)
        elif ".modules_to_save." in name:
            saved.setdefault(name.replace(".modules_to_save.", "."), info)
        else:
            saved[name] = info
    modules: dict[str, Lora] = {}
    unfit: list[str] = []
    for module, factors in parts.items():
        lora = _lora(config, module, factors)
        if lora is None:
            shapes = ", ".join(f"{part} {list(info.shape)}" for part, info in factors.items())
            unfit.append(f"{module} ({shapes})")
        else:
            modules[module] = lora
    where = str(folder / WEIGHTS)
    if no_floats:
        problems.add(f"expected tensors of floats, got {listed(no_floats)}", where=where)
    if unknown:
        problems.add(f"tensors that are not understood: {listed(unknown)}", where=where)
    if unfit:
        problems.add(f"factors that do not fit: {listed(unfit)}", where=where)
    if not modules and not saved and not (no_floats or unknown or unfit):
        problems.add("the adapter holds no LoRA", where=str(folder / WEIGHTS))
    problems.raise_if_any()
    return LoraAdapter(folder, config, modules, saved, base_layers)


def _lora(config: Mapping[str, Any], module: str, parts: Mapping[str, TensorInfo]) -> Lora | None:
    embedding = "lora_embedding_A" in parts
    a = parts.get("lora_embedding_A" if embedding else "lora_A")
    b = parts.get("lora_embedding_B" if embedding else "lora_B")
    if a is None or b is None or len(a.shape) != len(b.shape) or len(a.shape) not in (2, 4):
        return None
    rank = a.shape[0]
    if rank == 0 or b.shape[1] != rank:
        return None
    layout: Layout = "embedding" if embedding else "convolution" if len(a.shape) == 4 else "linear"
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha: float = next(
        (patterns[key] for key in patterns if _fits(key, module)), config.get("lora_alpha", PEFT_ALPHA)
    )
    scale = float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Lora(a, b, scale, layout, parts.get("lora_magnitude_vector"))


def _fits(key: str, module: str) -> bool:
    """PEFT's rule for keys of ``rank_pattern`` and ``alpha_pattern`` (``get_pattern_key``)."""
    try:
        return re.match(rf"(.*\.)?({key})$", module) is not None
    except re.error:
        return False


def write_adapter(
    folder: Path,
    modules: Mapping[str, tuple[Matrix, Matrix, Layout, tuple[int, ...]]],
    saved: Mapping[str, NDArray[Any]],
    config: Mapping[str, Any],
    dtype: str,
) -> None:
    """Write an adapter that ``PeftModel.from_pretrained`` loads, with all scales at 1.

    Args:
        folder: where.
        modules: module path -> left, right, layout and the weight's shape.
        saved: full tensors by name.
        config: the configuration to start from, of which what names no modules is kept; ranks, scales and
            targets are set here, and everything else is PEFT's default.
        dtype: the safetensors type to store.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for module, (left, right, layout, shape) in modules.items():
        a, b = (right, left) if layout in ("linear", "convolution") else (left.T, right.T)
        if layout == "convolution":
            a, b = a.reshape(a.shape[0], *shape[1:]), b.reshape(*b.shape, 1, 1)
        parts = ("lora_embedding_A", "lora_embedding_B") if layout == "embedding" else _PLAIN_PARTS
        for part, values in zip(parts, (a, b), strict=True):
            tensors[f"{PEFT_PREFIX}{module}.{part}"] = narrow(np.ascontiguousarray(values), dtype)
    biases = {name for name in saved if name.endswith(".bias") and name[:-4] + "weight" not in saved}
    for name, values in saved.items():
        module, _, part = name.rpartition(".")
        stored = f"{module}.base_layer.{part}" if name in biases and module in modules else name
        tensors[PEFT_PREFIX + stored] = narrow(values, dtype)
    ordered = dict(sorted(tensors.items()))
    write_file(folder / WEIGHTS, ordered, [dtype] * len(ordered))
    independent = {key: config[key] for key in _INDEPENDENT if key in config}
    written = {**independent, **_ranks({module: parts[1].shape[0] for module, parts in modules.items()})}
    written["bias"] = "all" if biases else "none"
    written["modules_to_save"] = sorted({name.rpartition(".")[0] for name in saved.keys() - biases}) or None
    text = json.dumps(written, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")


_INDEPENDENT = (
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "fan_in_fan_out",
    "lora_dropout",
)
"""Fields of an adapter's configuration that hold for any set of modules."""

_PLAIN_PARTS = ("lora_A.weight", "lora_B.weight")


def _ranks(ranks: Mapping[str, int]) -> dict[str, Any]:
    """Configuration fields for modules of given ranks, each with alpha equal to its rank."""
    counts = list(ranks.values())
    common = max(set(counts), key=lambda rank: (counts.count(rank), rank)) if counts else 1
    others = {module: rank for module, rank in ranks.items() if rank != common}
    return {
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "use_rslora": False,
        "use_dora": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
