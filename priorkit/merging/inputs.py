"""The inputs of a merge: read from headers, brought to one set of names, and checked against one another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.core.safetensors_header import TensorInfo
from priorkit.merging.lora import Lora, LoraAdapter, is_adapter, read_adapter
from priorkit.merging.names import NameMap
from priorkit.merging.tensors import BUFFERS, FLOATS, item_size
from priorkit.models.folder import read_config, tensor_files

SHOWN = 40
"""Names listed in one problem; a mismatch of everything would fill the screen otherwise."""


@dataclass(frozen=True)
class MergeInput:
    """One input as the merge sees it, its tensors by the reference's names.

    Attributes:
        label: how messages name it.
        folder: where it is.
        full: full tensors: all of a model's, an adapter's ``modules_to_save``.
        loras: changes in factors.
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


def check_types(tensors: dict[str, TensorInfo], label: str, problems: Problems) -> dict[str, TensorInfo]:
    """A model's tensors, refusing types that cannot be merged."""
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
    return tensors


def match_inputs(
    folders: Sequence[tuple[str, Path]],
    adapters: Mapping[str, LoraAdapter],
    models: Mapping[str, dict[str, TensorInfo]],
    reference: Mapping[str, TensorInfo],
    config: Mapping[str, Any] | None,
    problems: Problems,
) -> tuple[list[MergeInput], dict[str, tuple[str, ...]]]:
    """Bring every input's tensors to the reference's names, listing all that does not fit."""
    names = NameMap(reference)
    tied = _is_tied(config or {}) and not any(name.endswith("lm_head.weight") for name in reference)
    sources: list[MergeInput] = []
    ignored: dict[str, tuple[str, ...]] = {}
    for label, folder in folders:
        if label in adapters:
            source = _adapter_input(label, adapters[label], names if reference else None, tied, problems)
        else:
            source, left_out = _model_input(label, folder, models[label], names, reference, tied, problems)
            if left_out:
                ignored[label] = left_out
        _check_shapes(source, reference, problems)
        sources.append(source)
    if not reference:
        _check_between(sources, problems)
    return sources, ignored


def _is_tied(config: Mapping[str, Any]) -> bool:
    text: Any = config.get("text_config")
    table = cast("dict[str, Any]", text) if isinstance(text, dict) else {}
    return bool(config.get("tie_word_embeddings", table.get("tie_word_embeddings") or False))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _adapter_input(
    label: str, adapter: LoraAdapter, names: NameMap | None, tied: bool, problems: Problems
) -> MergeInput:
    if names is None:
        return MergeInput(label, adapter.folder, adapter.saved, adapter.modules, adapter)
    loras: dict[str, Lora] = {}
    full: dict[str, TensorInfo] = {}
    missing: list[str] = []
    for module, lora in adapter.modules.items():
        stored = names.find(f"{module}.weight")
        if stored is None:
            missing.append(f"{module}.weight")
        else:
            loras[stored] = lora
    for name, info in {**adapter.base_layers, **adapter.saved}.items():
        stored = names.find(name)
        if stored is None:
            missing.append(name)
        else:
            full[stored] = info
    if missing:
        problems.add(
            f"the base has no {_listed(missing)}",
            where=label,
            hint="the base ties its head to the embeddings; untie it first"
            if tied and any("lm_head" in name for name in missing)
            else "was the adapter trained on another base?",
        )
    if tied and any("embed_tokens" in name or name.endswith("wte.weight") for name in {**loras, **full}):
        problems.add(
            "it changes the embeddings, which the base ties to its head, so the head would change too",
            where=label,
            hint="untie the base's embeddings first",
        )
    return MergeInput(label, adapter.folder, full, loras, adapter)


def _model_input(
    label: str,
    folder: Path,
    tensors: dict[str, TensorInfo],
    names: NameMap,
    reference: Mapping[str, TensorInfo],
    tied: bool,
    problems: Problems,
) -> tuple[MergeInput, tuple[str, ...]]:
    check_types(tensors, label, problems)
    found: dict[str, TensorInfo] = {}
    extra: list[str] = []
    left_out: list[str] = []
    for name, info in tensors.items():
        stored = name if name in reference else names.find(name)
        if stored is not None and stored not in found:
            found[stored] = info
        elif tied and name.endswith("lm_head.weight") and _is_tied(read_config(folder)):
            left_out.append(name)
        else:
            extra.append(name)
    missing = [name for name in reference if name not in found]
    hint = "models of one architecture and size can be merged"
    if any("lm_head" in name for name in [*missing, *extra]):
        hint = "one of them ties its head to the embeddings and the other does not; untie it first"
    if missing:
        problems.add(f"missing tensors: {_listed(missing)}", where=label, hint=hint)
    if extra:
        problems.add(f"tensors that the others do not have: {_listed(extra)}", where=label, hint=hint)
    return MergeInput(label, folder, found), tuple(left_out)


def _check_shapes(source: MergeInput, reference: Mapping[str, TensorInfo], problems: Problems) -> None:
    wrong = [
        f"{name} {list(reference[name].shape)} expected, got {list(shape)}"
        for name, shape in (
            *((name, info.shape) for name, info in source.full.items()),
            *((name, lora.shape) for name, lora in source.loras.items()),
        )
        if name in reference and reference[name].shape != tuple(shape)
    ]
    if wrong:
        words = any("embed" in text or "lm_head" in text for text in wrong)
        problems.add(
            "shapes differ: " + _listed(wrong),
            where=source.label,
            hint="the vocabularies differ; give all models the same tokenizer and embeddings first"
            if words
            else "was it trained on another base?",
        )


def _check_between(sources: Sequence[MergeInput], problems: Problems) -> None:
    """Adapters alone have no reference: compare them with one another."""
    seen: dict[str, tuple[tuple[int, ...], str]] = {}
    for source in sources:
        for name, lora in source.loras.items():
            shape, label = seen.setdefault(name, (lora.shape, source.label))
            if shape != lora.shape:
                problems.add(
                    f"{name} has shape {list(lora.shape)}, in {label} {list(shape)}",
                    where=source.label,
                    hint="the adapters were trained on different bases",
                )
        dora = [name for name, lora in source.loras.items() if lora.magnitude is not None]
        if dora:
            problems.add(
                "a DoRA adapter rescales the base's weights and cannot be merged without them",
                where=source.label,
                hint="name the base with --base; add --extract to get an adapter",
            )


def check_architectures(configs: Mapping[str, Mapping[str, Any]], reference: str, problems: Problems) -> None:
    wanted = configs[reference]["model_type"]
    for label, config in configs.items():
        if config["model_type"] != wanted:
            problems.add(
                f"a model of type '{config['model_type']}', the others are '{wanted}'",
                where=label,
                hint="models of one architecture can be merged",
            )


def check_named_bases(
    adapters: Mapping[str, LoraAdapter], base: tuple[str, Path] | None, problems: Problems
) -> None:
    """Adapters without a base must at least name the same one."""
    named = {label: adapter.base_name for label, adapter in adapters.items() if adapter.base_name}
    if base is None and len({name.rstrip("/") for name in named.values()}) > 1:
        listed = ", ".join(f"{label} names '{name}'" for label, name in named.items())
        problems.add(
            f"the adapters are for different bases: {listed}",
            hint="if these are the same model, name it with --base (and --extract for an adapter)",
        )


def check_tokenizers(folders: Sequence[tuple[str, Path]], problems: Problems) -> None:
    """Refuse tokenizers that give one id to different tokens; rows of embeddings would be mixed up.

    Vocabularies are compared where folders carry a ``tokenizer.json``.
    """
    first: tuple[str, bytes, dict[str, int] | None] | None = None
    for label, folder in folders:
        file = folder / "tokenizer.json"
        if not file.is_file():
            continue
        content = file.read_bytes()
        if first is None:
            first = (label, content, None)
        elif content != first[1]:
            known = first[2] or _vocabulary(first[1])
            first = (first[0], first[1], known)
            found = _vocabulary(content)
            differing = sorted(token for token in {**known, **found} if known.get(token) != found.get(token))
            if differing:
                examples = "; ".join(
                    f"{token!r} is {known.get(token, 'absent')} and {found.get(token, 'absent')}"
                    for token in differing[:3]
                )
                problems.add(
                    f"its tokenizer differs from that of {first[0]} in {len(differing)} tokens: {examples}",
                    where=label,
                    hint="embeddings can only be merged row by row; give all the same tokenizer first",
                )


def _vocabulary(content: bytes) -> dict[str, int]:
    try:
        document = json.loads(content)
        words: Any = document["model"].get("vocab", {})
        vocabulary: dict[str, int] = (
            dict(cast("dict[str, int]", words))
            if isinstance(words, dict)
            else {entry[0]: number for number, entry in enumerate(words)}
        )
        vocabulary.update((token["content"], token["id"]) for token in document.get("added_tokens", []))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"tokenizer.json is not understood: {error}") from None
    return vocabulary
