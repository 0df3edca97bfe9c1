"""A mixture of adapters: the artifacts of LION's stages 1 and 2 joined into the start of stage 3."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from priorkit.architectures.lion.artifact import (
    ADAPTER_CONFIG,
    ADAPTER_MODEL,
    is_lion_adapter,
    read_adapter_config,
)
from priorkit.core import artifact
from priorkit.core.errors import InputError, Problems
from priorkit.core.safetensors_header import TensorInfo, read_header
from priorkit.merging.tensors import TensorReader

ADAPTERS, TASKS = ("region", "image"), ("region", "image")

_EQUAL_FIELDS = ("adapter_width", "adapter_input", "instruction_length", "tags")
"""Fields on which both stages must agree."""

_BRANCH_FIELDS: Mapping[str, tuple[str, ...]] = {
    "qformer": ("queries", "qformer"),
    "aggregator": (
        "aggregator_layers",
        "aggregator_heads",
        "aggregator_ffn",
        "aggregator_mlp",
        "dropout",
    ),
}
"""Fields that come from the stage that has the branch."""


@dataclass(frozen=True)
class MixturePlan:
    """Two stages that fit, or one adapter.

    Attributes:
        folders: where they are; a single one is merged into its base without a join.
        config: the joined ``adapter_config.json``.
        tensors: which file holds each tensor.
        width: the language model's; 0 for a single adapter.
        layers: how many layers have adapters; 0 for a single adapter.
        image_tokens: visual tokens of one image.
    """

    folders: tuple[Path, ...]
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    width: int
    layers: int
    image_tokens: int


def plan_single(label: str, folder: Path) -> MixturePlan:
    """One LION adapter that is to be put into its base.

    Raises:
        InputError: no LION adapter.
    """
    if not is_lion_adapter(folder):
        raise InputError(
            "no LION adapter", where=label, hint="mixture joins stages of tune --architecture lion"
        )
    config = read_adapter_config(folder)
    tensors = read_header(folder / ADAPTER_MODEL)
    return MixturePlan((folder,), config, tensors, 0, 0, config["lion"]["image_seq_length"])


def plan_mixture(labels: Sequence[str], folders: Sequence[Path]) -> MixturePlan:
    """Check from headers that two adapters are stage 1 and stage 2 of one base and do not overlap.

    Raises:
        InputError: no LION adapters, not one of each stage, other bases or shapes, or tensors that both
            have; all problems at once.
    """
    problems = Problems(InputError)
    for label, folder in zip(labels, folders, strict=True):
        if not is_lion_adapter(folder):
            problems.add(
                "no LION adapter", where=label, hint="mixture joins stages of tune --architecture lion"
            )
    problems.raise_if_any()
    configs = [read_adapter_config(folder) for folder in folders]
    _check_agreement(labels, configs, problems)
    tensors: dict[str, TensorInfo] = {}
    clashes: list[str] = []
    for folder in folders:
        for name, info in read_header(folder / ADAPTER_MODEL).items():
            if name in tensors:
                clashes.append(name)
            tensors[name] = info
    if clashes:
        soft = " (a soft prompt is trained in stage 3: tune stages 1 and 2 without --tags soft)"
        problems.add(
            f"both have {len(clashes)} tensors, such as {clashes[0]}"
            + (soft if any("soft_prompt" in name for name in clashes) else ""),
            where=", ".join(labels),
        )
    problems.raise_if_any()
    lion = _join_fields([config["lion"] for config in configs])
    downs = [info for name, info in tensors.items() if name.endswith(".region.down.weight")]
    config = {**configs[0], "stage": "1+2", "lion": lion}
    return MixturePlan(
        tuple(folders), config, tensors, downs[0].shape[1], len(downs), lion["image_seq_length"]
    )


def _check_agreement(labels: Sequence[str], configs: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """One adapter of each stage, on one base, with equal fields."""
    adapters = [name for config in configs for name in config["lion"]["adapters"]]
    if sorted(adapters) != sorted(ADAPTERS):
        problems.add(
            f"one image and one region adapter make a mixture, got {', '.join(adapters) or 'none'}",
            where=", ".join(labels),
            hint="give an artifact of stage 1 and one of stage 2",
        )
    first = configs[0]
    for label, config in zip(labels[1:], configs[1:], strict=True):
        if config["base"] != first["base"]:
            problems.add(f"its base is {config['base']}, the first one's {first['base']}", where=label)
        elif not _same_base(first, config):
            problems.add(
                f"its base is {config['base_model_name_or_path']}, the first one's is "
                f"{first['base_model_name_or_path']}",
                where=label,
                hint="both stages must be tuned on one base",
            )
        for name in _EQUAL_FIELDS:
            if config["lion"][name] != first["lion"][name]:
                problems.add(
                    f"{name} is {config['lion'][name]}, the first one's {first['lion'][name]}", where=label
                )


def _join_fields(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of ``LionConfig`` with the branches and adapters of both stages and a router."""
    joined = dict(stages[0])
    joined["branches"] = [
        name
        for name in ("qformer", "aggregator", "projector")
        if any(name in stage["branches"] for stage in stages)
    ]
    joined["adapters"], joined["router"] = list(ADAPTERS), True
    for stage in stages:
        for branch, names in _BRANCH_FIELDS.items():
            if branch in stage["branches"]:
                joined |= {name: stage[name] for name in names}
    joined["image_seq_length"] = sum(stage["image_seq_length"] for stage in stages)
    return joined


def _same_base(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two adapters name one base: the same text, or the same content by the manifests' digests."""
    names = [str(config["base_model_name_or_path"]) for config in (one, other)]
    if names[0] == names[1]:
        return True
    folders = [Path(name) for name in names]
    if not all(artifact.is_artifact(folder) for folder in folders):
        return False
    files = [artifact.open_artifact(folder).manifest.files for folder in folders]
    return bool(files[0]) and files[0] == files[1]


def write_mixture(plan: MixturePlan, folder: Path) -> dict[str, Any]:
    """Write the joined adapter with hard gates: each task type starts with its own adapter.

    The number of visual tokens is written into the processor in the folder, if there is one.

    Returns:
        Figures for ``merge.json``.
    """
    with TensorReader() as reader:
        reader.open(source / ADAPTER_MODEL for source in plan.folders)
        tensors = {name: reader.shaped(info, np.float32) for name, info in plan.tensors.items()}
    for layer in range(plan.layers):
        for adapter in ADAPTERS:
            for task in TASKS:
                gate = np.full(plan.width, float(adapter == task), np.float32)
                tensors[f"model.lion.layers.{layer}.router.{adapter}_on_{task}"] = gate
    text = json.dumps(plan.config, indent=2, sort_keys=True) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    ordered = {name: tensors[name] for name in sorted(tensors)}
    save_file(ordered, folder / ADAPTER_MODEL, metadata={"format": "pt"})
    processor = folder / "processor_config.json"
    if processor.is_file():
        written = {**json.loads(processor.read_text(encoding="utf-8")), "image_tokens": plan.image_tokens}
        processor.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return {
        "tensors": len(tensors),
        "layers": plan.layers,
        "parameters": sum(v.size for v in tensors.values()),
    }
