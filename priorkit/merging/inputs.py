"""The inputs of a merge: read from headers, brought to one set of names, and checked against one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.layouts import orient_loras
from priorkit.merging.lora import Lora, LoraAdapter, is_adapter, listed, read_adapter
from priorkit.merging.multimodal.language_part import is_grown
from priorkit.merging.names import NameMap
from priorkit.merging.tensors import BUFFERS, FLOATS, item_size
from priorkit.merging.tied_embeddings import ResolvedModels, TiedPair, place_adapter
from priorkit.models.folder import read_config, tensor_files


@dataclass(frozen=True)
class MergeInput:
    """One input as the merge sees it, its tensors by the reference's names.

    Attributes:
        label: how messages name it.
        folder: where it is.
        full: full tensors: all of a model's, an adapter's ``modules_to_save``.
        loras: deltas in factors.
        adapter: the adapter, where it is one.
    """

    label: str
    folder: Path
    full: Mapping[str, TensorInfo]
    loras: Mapping[str, Lora] = field(default_factory=dict[str, Lora])
    adapter: LoraAdapter | None = None


def read_inputs(
    folders: Sequence[tuple[str, Path]], base: tuple[str, Path] | None, problems: Problems
) -> tuple[dict[str, LoraAdapter], dict[str, dict[str, TensorInfo]], dict[str, dict[str, Any]]]:
    """Read configurations and headers of everything, the base first."""
    adapters: dict[str, LoraAdapter] = {}
    models: dict[str, dict[str, TensorInfo]] = {}
    configs: dict[str, dict[str, Any]] = {}
    for label, folder in [*([base] if base else []), *folders]:
        is_base = base is not None and label == base[0]
        try:
            if is_adapter(folder) and is_base:
                raise InputError("the base is an adapter; a full model is needed", where=label)
            if is_adapter(folder):
                adapters[label] = read_adapter(folder)
                continue
            config = read_config(folder)
            quantised: Any = config.get("quantization_config")
            if quantised:
                table = cast("dict[str, Any]", quantised) if isinstance(quantised, dict) else {}
                kind = str(table.get("quant_method", ""))
                raise InputError(
                    f"the model is quantised ({kind or 'quantization_config is set'})",
                    where=label,
                    hint="merge into the unquantised model and quantise the result",
                )
            models[label], configs[label] = tensor_files(folder), config
        except InputError as error:
            problems.extend(error)
    return adapters, models, configs


def check_types(tensors: Mapping[str, TensorInfo], label: str, problems: Problems) -> None:
    """Refuse types of tensors that cannot be merged."""
    odd = sorted({info.dtype for info in tensors.values()} - set(FLOATS) - set(BUFFERS))
    if odd:
        problems.add(
            f"tensors of type {', '.join(odd)} cannot be merged",
            where=label,
            hint="dequantise the model first",
        )
    for info in tensors.values():
        if (
            info.dtype in FLOATS
            and info.offset + info.count * item_size(info.dtype) > info.file.stat().st_size
        ):
            problems.add("a tensor's shape does not fit its bytes", where=str(info.file))
            break


def match_inputs(
    folders: Sequence[tuple[str, Path]],
    adapters: Mapping[str, LoraAdapter],
    resolved: ResolvedModels | None,
    reference: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    problems: Problems,
    language: Collection[str] = (),
) -> list[MergeInput]:
    """Bring every input's tensors to the reference's names, listing all that does not fit.

    Args:
        folders: the inputs, ``(label, folder)``.
        adapters: the adapters among them, by label.
        resolved: the models; None where only adapters are merged.
        reference: tensors of the reference; empty where only adapters are merged.
        config: the reference's configuration.
        problems: collects what does not fit.
        language: labels of language models that are merged into the reference's language part.
    """
    names = NameMap(reference)
    sources: list[MergeInput] = []
    for label, folder in folders:
        if label not in adapters:
            tensors = resolved.models[label] if resolved else {}
            source = _model_input(label, folder, tensors, names, reference, problems)
        elif resolved is None:
            adapter = adapters[label]
            source = MergeInput(label, folder, adapter.saved, adapter.modules, adapter)
        else:
            source = _adapter_input(label, adapters[label], resolved.pair, reference, config, problems)
        _check_shapes(source, reference, problems, grown=label in language)
        sources.append(source)
    if not reference:
        _check_between(sources, problems)
    return sources


def _adapter_input(
    label: str,
    adapter: LoraAdapter,
    pair: TiedPair | None,
    reference: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    problems: Problems,
) -> MergeInput:
    tied = pair is not None and pair.head not in reference
    placed = place_adapter(adapter, NameMap([*reference, *([pair.head] if pair and tied else [])]))
    if placed.missing:
        problems.add(
            f"the base has no {listed(placed.missing)}",
            where=label,
            hint="was the adapter trained on another base?",
        )
    loras = orient_loras(placed.loras, reference, config, bool(adapter.config.get("fan_in_fan_out")))
    return MergeInput(label, adapter.folder, placed.full(pair, reference), loras, adapter)


def _model_input(
    label: str,
    folder: Path,
    tensors: Mapping[str, TensorInfo],
    names: NameMap,
    reference: Mapping[str, TensorInfo],
    problems: Problems,
) -> MergeInput:
    check_types(tensors, label, problems)
    matched: dict[str, TensorInfo] = {}
    extra: list[str] = []
    for name, info in tensors.items():
        stored = name if name in reference else names.find(name)
        if stored is not None and stored not in matched:
            matched[stored] = info
        else:
            extra.append(name)
    missing = [name for name in reference if name not in matched]
    hint = "models of one architecture and size can be merged"
    if missing:
        problems.add(f"missing tensors: {listed(missing)}", where=label, hint=hint)
    if extra:
        problems.add(f"tensors that the others do not have: {listed(extra)}", where=label, hint=hint)
    return MergeInput(label, folder, matched)


def _check_shapes(
    source: MergeInput, reference: Mapping[str, TensorInfo], problems: Problems, *, grown: bool
) -> None:
    wrong = [
        f"{name} {list(reference[name].shape)} expected, got {list(shape)}"
        for name, shape in (
            *((name, info.shape) for name, info in source.full.items()),
            *((name, lora.shape) for name, lora in source.loras.items()),
        )
        if name in reference
        and reference[name].shape != tuple(shape)
        and not (grown and is_grown(name, tuple(shape), reference[name].shape))
    ]
    if wrong:
        words = any("embed" in text or "lm_head" in text for text in wrong)
        problems.add(
            "shapes differ: " + listed(wrong),
            where=source.label,
            hint="the vocabularies differ; give all models the same tokenizer and embeddings first"
            if words
            else "was it trained on another base?",
        )


def _check_between(sources: Sequence[MergeInput], problems: Problems) -> None:
    """Compare adapters with one another where there is no model to compare them with."""
    first: dict[str, tuple[tuple[int, ...], str]] = {}
    for source in sources:
        wrong: list[str] = []
        for name, lora in source.loras.items():
            shape, label = first.setdefault(name, (lora.shape, source.label))
            if shape != lora.shape:
                wrong.append(f"{name} has shape {list(lora.shape)}, in {label} {list(shape)}")
        if wrong:
            problems.add(
                listed(wrong), where=source.label, hint="the adapters were trained on different bases"
            )
        if any(lora.magnitude is not None for lora in source.loras.values()):
            problems.add(
                "a DoRA adapter rescales the base's weights and cannot be merged without them",
                where=source.label,
                hint="name the base with --base; add --extract to get an adapter",
            )
