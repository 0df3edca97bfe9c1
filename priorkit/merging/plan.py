"""Planning a merge from headers: the request, its checks, and the memory it needs."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.checks.compatibility import check_architectures, check_named_bases, check_tokenizers
from priorkit.merging.checks.completeness import check_complete
from priorkit.merging.checks.configs import check_configs
from priorkit.merging.inputs import MergeInput, check_types, match_inputs, read_inputs
from priorkit.merging.layouts import has_transposed_layers
from priorkit.merging.lora import LoraAdapter
from priorkit.merging.methods.registry import METHODS, PARAMETERS, PEFT_FACTOR_LINEAR, MergeMethod
from priorkit.merging.multimodal.language_part import see_as_multimodal
from priorkit.merging.tensors import FLOATS, item_size
from priorkit.merging.tied_embeddings import resolve_models
from priorkit.merging.weights import Weights, parse_rules
from priorkit.models.folder import read_config

logger = logging.getLogger(__name__)

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


@dataclass(frozen=True)
class MergeRequest:
    """What to merge and how, without the inputs.

    Attributes:
        method: name of the method.
        weights: one for all inputs, or one per input.
        density: likewise.
        rules: weights of parts of the model; see :mod:`priorkit.merging.weights`.
        parameters: the method's parameters that were given.
        extract: write the delta as an adapter, also from full models.
        rank: maximum rank of a merged adapter.
        energy: minimum share of squared singular values that it keeps.
        dtype: dtype to store, a key of :data:`DTYPES`; None for that of the base.
        analyse: compare the inputs instead of merging them.
    """

    method: str = "linear"
    weights: tuple[float, ...] = (1.0,)
    density: tuple[float, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict[str, str])
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    extract: bool = False
    rank: int | None = None
    energy: float | None = None
    dtype: str | None = None
    analyse: bool = False


@dataclass(frozen=True)
class MergePlan:
    """A checked merge.

    Attributes:
        method: the method.
        parameters: all its parameters, with defaults.
        density: one per input, for methods that have a density.
        weights: one per input and tensor.
        inputs: the inputs.
        base: tensors of the base; empty without one.
        reference: names, shapes and files of the tensors to write: the base's, or the first model's.
        folder: folder of the reference; None where only adapters are merged.
        on_models: whether the models themselves are merged instead of deltas.
        to_adapter: whether an adapter is written.
        rank, energy, dtype: see :class:`MergeRequest`.
        transposed_layers: whether the model has layers stored input first.
        unties: whether ``tie_word_embeddings`` must be set to false in the result's configuration.
        redundant: heads in files that only repeat the embeddings, by label; they are left out.
    """

    method: MergeMethod
    parameters: Mapping[str, Any]
    density: tuple[float, ...]
    weights: Weights
    inputs: tuple[MergeInput, ...]
    base: Mapping[str, TensorInfo]
    reference: Mapping[str, TensorInfo]
    folder: Path | None
    on_models: bool
    to_adapter: bool
    rank: int | None
    energy: float | None
    dtype: str | None
    transposed_layers: bool = False
    unties: bool = False
    redundant: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def kind(self) -> str:
        """Artifact kind of the result."""
        if self.to_adapter or self.folder is None:
            return "adapter"
        return kind_of(read_config(self.folder))

    def stored_dtype(self, name: str) -> str:
        """The dtype in which a tensor of the reference is written."""
        dtype = self.reference[name].dtype
        return self.dtype if self.dtype and dtype in FLOATS else dtype

    @property
    def output_bytes(self) -> int:
        """Size of the tensors to write."""
        if self.to_adapter:
            loras = [lora for item in self.inputs for lora in item.loras.values()]
            return sum(4 * (lora.a.count + lora.b.count) for lora in loras)
        return sum(info.count * item_size(self.stored_dtype(name)) for name, info in self.reference.items())

    def tensor_bytes(self, name: str, precision: int = 4) -> int:
        """Peak memory of merging one tensor."""
        count = math.prod(self.shape_of(name))
        if self.blockwise(name):
            return (len(self.inputs) + 3) * min(count, 1 << 16) * precision
        # Decompositions are in float64: the matrix and a working copy of it.
        dense = 16 * count if self.to_adapter else 0
        return dense + count * (2 + precision * (len(self.inputs) + 2))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a merged tensor."""
        if name in self.reference:
            return self.reference[name].shape
        return next(item.loras[name].shape for item in self.inputs if name in item.loras)

    def blockwise(self, name: str) -> bool:
        """Whether a tensor can be merged a block of rows at a time."""
        if self.method.select is not None:
            return False
        return not any(name in item.loras and item.loras[name].magnitude is not None for item in self.inputs)


def plan_merge(
    request: MergeRequest, folders: Sequence[tuple[str, Path]], base: tuple[str, Path] | None
) -> MergePlan:
    """Check the request and the inputs from headers.

    Args:
        request: what to merge and how.
        folders: the inputs, ``(label, folder)``.
        base: the base model likewise.

    Raises:
        UsageError: options that exclude one another.
        InputError: broken or incompatible inputs; all problems at once.
    """
    method = METHODS[request.method]
    parameters = _parameters(request, method, len(folders))
    rules = parse_rules(request.rules, len(folders))
    problems = Problems(InputError)
    adapters, models, configs = read_inputs(folders, base, problems)
    problems.raise_if_any()
    _check_usage(request, method, adapters, models, base is not None)
    reference_label = base[0] if base else next(iter(models), None)
    language = see_as_multimodal(models, configs, reference_label, problems)
    resolved = folder = None
    if reference_label:
        extracts = request.extract and not request.analyse
        resolved = resolve_models(models, configs, list(adapters.values()), reference_label, extracts)
        check_types(models[reference_label], reference_label, problems)
    reference = resolved.models[reference_label] if resolved and reference_label else {}
    config = configs[reference_label] if reference_label else {}
    inputs = match_inputs(folders, adapters, resolved, reference, config, problems, language)
    if reference_label:
        check_architectures(configs, reference_label, problems)
        check_configs(configs, reference_label, problems)
        folder = dict([*folders, *([base] if base else [])])[reference_label]
        check_complete(reference_label, folder, models[reference_label], config, problems)
    check_named_bases(adapters, base, problems)
    check_tokenizers([*([base] if base else []), *folders], problems, language)
    problems.raise_if_any()
    to_adapter = not request.analyse and (request.extract or not reference)
    names = list(reference) if reference else list(dict.fromkeys(n for item in inputs for n in item.loras))
    weights = Weights(_spread(request.weights, len(folders)), rules, names)
    if weights.unused:
        raise UsageError(
            f"no tensor matches {', '.join(weights.unused)}",
            where="--weight-rule",
            hint=f"tensors are named like {names[len(names) // 2]}",
        )
    plan = MergePlan(
        method=method,
        parameters=parameters,
        density=_spread(request.density or (1.0,), len(folders)),
        weights=weights,
        inputs=tuple(inputs),
        base=reference if base else {},
        reference=reference,
        folder=folder,
        on_models=method.on_models and not adapters,
        to_adapter=to_adapter,
        rank=request.rank,
        energy=request.energy,
        dtype=DTYPES[request.dtype] if request.dtype else None,
        transposed_layers=has_transposed_layers(config),
        unties=resolved is not None and resolved.unties,
        redundant=resolved.redundant if resolved else {},
    )
    if not request.analyse:
        _check_weights(plan, names)
    return plan


def _spread(values: Sequence[float], count: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == count else tuple(values) * count


def _parameters(request: MergeRequest, method: MergeMethod, inputs: int) -> dict[str, Any]:
    """The method's parameters with its defaults; parameters it does not have are refused."""
    problems = Problems(UsageError)
    given = dict(request.parameters)
    if request.density:
        given["density"] = request.density
    for name in given:
        if name not in method.parameters:
            flags = [_flag_of(known) for known in method.parameters]
            problems.add(
                f"{method.name} has no such parameter",
                where=_flag_of(name),
                hint=f"it takes {', '.join(flags)}" if flags else "it takes none",
            )
    for name, values in (("--weight", request.weights), ("--density", request.density)):
        if len(values) not in (0, 1, inputs):
            problems.add(
                f"{len(values)} values for {inputs} inputs",
                where=name,
                hint="give it once, or once per input",
            )
    for share in request.density:
        if not 0 < share <= 1:
            problems.add(f"expected a share above 0 and up to 1, got {share:g}", where="--density")
    low, high = method.inputs
    if not request.analyse and not low <= inputs <= high:
        expected = f"{low} inputs" if low == high else f"at least {low} inputs"
        problems.add(f"{method.name} merges {expected}, got {inputs}", where="INPUT")
    if not method.takes_weights and (tuple(request.weights) != (1.0,) or request.rules):
        problems.add(f"{method.name} computes its own weights", where="--weight", hint="leave it out")
    parameters = {**method.parameters, **given}
    if "epsilon" in method.parameters:
        for share in request.density:
            if share < 1 and not 0 < share - parameters["epsilon"] < share + parameters["epsilon"] < 1:
                problems.add(
                    f"density {share:g} +/- epsilon {parameters['epsilon']:g} leaves the range from 0 to 1",
                    where="--epsilon",
                )
    problems.raise_if_any()
    parameters.pop("density", None)
    return parameters


def _flag_of(parameter: str) -> str:
    """The command-line option of a method's parameter."""
    return PARAMETERS[parameter].flag if parameter in PARAMETERS else f"--{parameter}"


def _check_usage(
    request: MergeRequest,
    method: MergeMethod,
    adapters: Mapping[str, LoraAdapter],
    models: Mapping[str, object],
    has_base: bool,
) -> None:
    problems = Problems(UsageError)
    full = len(models) - has_base
    if full and not has_base and (adapters or request.extract or request.analyse or not method.on_models):
        if adapters:
            why = "models and adapters are merged as deltas from a base"
        elif request.extract or request.analyse:
            why = "the delta of a full model is its difference from a base"
        else:
            why = f"{method.name} merges deltas from a base"
        problems.add(why, where="--base", hint="name the model that the inputs were trained from")
    if method.name == PEFT_FACTOR_LINEAR and (full or has_base):
        problems.add(
            f"{method.name} merges only adapters, into an adapter", where="--base", hint="use --method linear"
        )
    if (request.rank or request.energy) and models and not request.extract and not request.analyse:
        problems.add(
            "only adapters have a rank or an energy share, and the result is a model",
            where="--rank" if request.rank else "--energy",
            hint="add --extract to write the delta as an adapter",
        )
    if request.extract and full and not request.rank and not request.energy and not adapters:
        problems.add("extracting an adapter needs a size", where="--extract", hint="add --rank or --energy")
    problems.raise_if_any()


def _check_weights(plan: MergePlan, names: Sequence[str]) -> None:
    """Find weights that cannot be normalized before any weight is read."""
    if not plan.method.normalizes(plan.parameters):
        return
    ineffective = next((name for name in names if plan.weights.of(name) not in ((0.0,), (1.0,))), None)
    if len(plan.inputs) == 1 and ineffective is not None:
        logger.warning(
            f"the weight {plan.weights.of(ineffective)[0]:g} has no effect: {plan.method.name} normalizes weights "
            "to a sum of 1, and there is one input"
            + ("; --no-normalize applies it" if "normalize" in plan.parameters else "")
        )
    for name in names:
        if abs(math.fsum(plan.weights.of(name))) < 1e-8:
            raise UsageError(
                f"the weights sum to 0 for {name} and cannot be normalized",
                where="--weight",
                hint="use --no-normalize" if "normalize" in plan.parameters else "give other weights",
            )


def kind_of(config: Mapping[str, Any]) -> str:
    """Artifact kind of a model, from its configuration."""
    architectures = " ".join(config.get("architectures") or [])
    if "ForConditionalGeneration" in architectures and "vision_config" in config:
        return "mllm"
    if "vision_config" in config or "image_size" in config:
        return "encoder" if "ForCausalLM" not in architectures else "mllm"
    return "llm"
