"""Merging into an adapter: exact sums of factors, or the best adapter of a given size for a dense delta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, UsageError
from priorkit.merging.deltas import Deltas, Values
from priorkit.merging.execute import map_tensors
from priorkit.merging.layouts import is_transposed
from priorkit.merging.lora import Layout, Lora, write_adapter
from priorkit.merging.lora_factors import (
    concatenate,
    factor_gram,
    factor_linear,
    truncate_dense,
    truncate_factors,
)
from priorkit.merging.methods.registry import PEFT_FACTOR_LINEAR
from priorkit.merging.names import in_memory
from priorkit.merging.plan import MergePlan
from priorkit.merging.tensors import FLOATS, TensorReader

_NO_LORA = ("embed", "lm_head", "wte.", "wpe.", "classifier")
"""Parts of the names of matrices that extraction skips."""


@dataclass(frozen=True, slots=True)
class MergedModule:
    """One module of a merged adapter.

    Attributes:
        left, right: its factors.
        layout: their orientation relative to the weight.
        shape: the weight's shape.
        error: the norm of what truncation cut off.
        norm: the norm of the full delta.
    """

    left: Values
    right: Values
    layout: Layout
    shape: tuple[int, ...]
    error: float
    norm: float


def write_merged(
    plan: MergePlan, deltas: Deltas, reader: TensorReader, folder: Path, workers: int, base_name: str
) -> dict[str, Any]:
    """Write the merged adapter.

    Returns:
        For ``merge.json``: rank, norm and error of every module, and what was left out.
    """
    names, left_out = _targets(plan)
    fitted = map_tensors(
        names, lambda name: _fit(plan, deltas, reader, name), plan.tensor_bytes, workers, "merge"
    )
    saved, of_base = _saved(plan, deltas, reader)
    modules: dict[str, tuple[Values, Values, Layout, tuple[int, ...]]] = {
        _module(plan, name): (fit.left, fit.right, fit.layout, fit.shape) for name, fit in fitted.items()
    }
    write_adapter(folder, modules, saved, _config(plan, base_name), plan.dtype or "F32")
    norm = math.sqrt(math.fsum(fit.norm**2 for fit in fitted.values()))
    error = math.sqrt(math.fsum(fit.error**2 for fit in fitted.values()))
    return {
        "change_norm": norm,
        "relative_error": error / norm if norm else 0.0,
        "rank": max((fit.right.shape[0] for fit in fitted.values()), default=0),
        "tensors": {
            name: {
                "rank": fit.right.shape[0],
                "change_norm": fit.norm,
                "relative_error": fit.error / fit.norm if fit.norm else 0.0,
            }
            for name, fit in fitted.items()
        },
        "left_out": {name: norm for name in left_out if (norm := _change_norm(deltas, name)) > 0},
        "saved_whole": of_base,
    }


def _targets(plan: MergePlan) -> tuple[list[str], list[str]]:
    """Tensors that become LoRAs, and those that a LoRA cannot change."""
    if all(source.adapter is not None for source in plan.inputs):
        return list(dict.fromkeys(name for source in plan.inputs for name in source.loras)), []
    matrices = [
        name
        for name, info in plan.reference.items()
        if len(info.shape) == 2
        and name.endswith(".weight")
        and info.dtype in FLOATS
        and not any(part in name for part in _NO_LORA)
    ]
    chosen = set(matrices)
    rest = [name for name, info in plan.reference.items() if name not in chosen and info.dtype in FLOATS]
    return matrices, rest


def _change_norm(deltas: Deltas, name: str) -> float:
    merged = deltas.merged(name)
    total = 0.0
    for start, count in deltas.blocks(name):
        values = merged(start, count)
        total += float(np.dot(values, values))
    return math.sqrt(total)


def _loras(plan: MergePlan, name: str) -> list[Lora | None]:
    return [source.loras.get(name) for source in plan.inputs]


def _layout(plan: MergePlan, name: str) -> Layout:
    for lora in _loras(plan, name):
        if lora is not None:
            return lora.layout
    return "transposed" if is_transposed(name, plan.transposed_layers) else "linear"


def _fit(plan: MergePlan, deltas: Deltas, reader: TensorReader, name: str) -> MergedModule:
    """One module's merged factors: exact where the method is a combination of plain LoRAs."""
    layout, shape = _layout(plan, name), plan.shape_of(name)
    loras = _loras(plan, name)
    exact = not any(name in source.full for source in plan.inputs) and not any(
        lora is not None and lora.magnitude is not None for lora in loras
    )
    if not exact or plan.method.select is not None:
        return _fit_dense(plan, deltas, name, layout, shape)
    scaled = plan.method.name != PEFT_FACTOR_LINEAR
    factors = [None if lora is None else lora.factors(reader, np.float32, scaled) for lora in loras]
    if not scaled:
        scales = [0.0 if lora is None else lora.scale for lora in loras]
        joined = factor_linear(factors, scales, plan.weights.of(name))
    else:
        coefficients = plan.method.coefficients
        products = factor_gram(factors) if plan.method.needs_gram else None
        weights = plan.weights.of(name)
        joined = concatenate(
            factors, coefficients(products, weights, plan.parameters) if coefficients else weights
        )
    if joined is None:
        rows, columns = shape[0], math.prod(shape[1:])
        return MergedModule(np.zeros((rows, 1)), np.zeros((1, columns)), layout, shape, 0.0, 0.0)
    left, right = joined
    if plan.rank is None and plan.energy is None:
        norm = math.sqrt(max(float(factor_gram([joined])[0, 0]), 0.0))
        return MergedModule(left, right, layout, shape, 0.0, norm)
    cut = truncate_factors(left, right, plan.rank, plan.energy)
    return MergedModule(cut.left, cut.right, layout, shape, cut.error, cut.norm)


def _fit_dense(
    plan: MergePlan, deltas: Deltas, name: str, layout: Layout, shape: tuple[int, ...]
) -> MergedModule:
    merged = deltas.merged(name)
    values = np.concatenate([merged(start, count) for start, count in deltas.blocks(name)])
    rank = plan.rank
    if rank is None and plan.energy is None:
        # A selection makes the delta dense; the size of the exact sum is what can be compared with it.
        rank = sum(lora.rank for lora in _loras(plan, name) if lora is not None) or 1
    cut = truncate_dense(values.reshape(shape[0], -1), rank, plan.energy)
    return MergedModule(cut.left, cut.right, layout, shape, cut.error, cut.norm)


def _saved(
    plan: MergePlan, deltas: Deltas, reader: TensorReader
) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Merge what adapters keep whole (``modules_to_save``)."""
    sources = [source for source in plan.inputs if source.adapter is not None]
    names = list(dict.fromkeys(name for source in sources for name in _whole(plan, source.full)))
    merged: dict[str, NDArray[Any]] = {}
    for name in names:
        if plan.method.needs_gram or plan.method.coefficients is None:
            raise UsageError(
                f"the adapters keep {name} whole, and {plan.method.name} cannot merge that into an adapter",
                where="--method",
                hint="use linear, or fold into a model with --base",
            )
        coefficients = plan.method.coefficients(None, plan.weights.of(name), plan.parameters)
        held = [
            (source.full[name], coefficient)
            for source, coefficient in zip(plan.inputs, coefficients, strict=True)
            if name in source.full
        ]
        share = math.fsum(coefficient for _, coefficient in held)
        if not plan.base and abs(share - 1) > 1e-9:
            raise InputError(
                f"the adapters keep {name} whole with weights that sum to {share:g}, so the base's is needed",
                hint="name the base with --base and add --extract, or let the weights sum to 1",
            )
        total: Any = 0.0
        for info, coefficient in held:
            total = total + coefficient * reader.shaped(info, np.float64)
        if plan.base and share != 1:
            total = total + (1 - share) * reader.shaped(plan.reference[name], np.float64)
        merged[in_memory(name, plan.reference)] = np.asarray(total, np.float32)
    return merged, names


def _whole(plan: MergePlan, full: Mapping[str, Any]) -> list[str]:
    loras = {name for source in plan.inputs for name in source.loras}
    return [name for name in full if name not in loras]


def _module(plan: MergePlan, name: str) -> str:
    """The module path that PEFT looks for."""
    if not plan.reference:
        return name
    for source in plan.inputs:
        lora = source.loras.get(name)
        if source.adapter is not None and lora is not None:
            return next(module for module, known in source.adapter.modules.items() if known is lora)
    return in_memory(name, plan.reference).removesuffix(".weight")


def _config(plan: MergePlan, base_name: str) -> dict[str, Any]:
    """The configuration that the merged adapter starts from: the first adapter's, or a plain one."""
    for source in plan.inputs:
        if source.adapter is not None:
            config = dict(source.adapter.config)
            return {**config, "base_model_name_or_path": base_name or source.adapter.base_name}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base_name,
        "bias": "none",
        "fan_in_fan_out": plan.transposed_layers,
        "lora_dropout": 0.0,
    }
