"""What a model directory holds, read from headers: a language model, a multimodal model or an encoder, maybe with an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from priorkit.core.errors import InputError
from priorkit.core.inputs import Input, resolve
from priorkit.core.safetensors_header import read_header
from priorkit.models.folder import read_config, read_json
from priorkit.models.language.causal_lm import check_llm
from priorkit.models.multimodal.base import MultimodalModel
from priorkit.models.vision.loading import check_encoder

ModelKind = Literal["llm", "mllm", "encoder"]

ADAPTER_CONFIG, ADAPTER_MODEL = "adapter_config.json", "adapter_model.safetensors"


class ModelFormat(Protocol):
    """How the multimodal models of one architecture are stored."""

    def recognizes(self, folder: Path) -> bool:
        """Whether a directory holds such a model or an adapter in its format, complete or not."""
        ...

    def check(self, folder: Path) -> ModelInfo:
        """Check a recognized directory from headers.

        Raises:
            InputError: files are missing or broken.
        """
        ...


class MultimodalFormat(ModelFormat, Protocol):
    """How an architecture's multimodal models are stored, and how they are loaded for priorkit's own loops."""

    def load_for_inference(self, info: ModelInfo) -> MultimodalModel:
        """Load a checked model with its adapter.

        Raises:
            InputError: it cannot be loaded.
        """
        ...


@dataclass(frozen=True)
class ModelInfo:
    """A model as its headers describe it.

    Attributes:
        kind: what it can do.
        folder: its directory, or the base model's.
        adapter: the directory of an adapter on it.
        base: the base model of an adapter as an input, for its digest.
        format: loads it, if it is a multimodal model of an architecture that priorkit trains.
        native: whether priorkit's own loops run it; any other model is run by transformers' ``generate``.
        portable: whether transformers' ``generate`` and vLLM run it too: not where images need the question.
    """

    kind: ModelKind
    folder: Path
    adapter: Path | None = None
    base: Input | None = None
    format: MultimodalFormat | None = None
    native: bool = True
    portable: bool = True


def check_model(folder: Path, formats: Sequence[ModelFormat]) -> ModelInfo:
    """Find out from headers what a model directory holds.

    Args:
        folder: in Hugging Face's layout, or PEFT's.
        formats: those of multimodal models that may be recognized.

    Raises:
        InputError: no model, an adapter without base or of a type PEFT does not know, or broken weights.
    """
    for known in formats:
        if known.recognizes(folder):
            return known.check(folder)
    if (folder / ADAPTER_CONFIG).is_file():
        return _check_adapter(folder, formats)
    config = read_config(folder)
    if "vision_config" in config and "text_config" in config:
        check_encoder(folder)
        return ModelInfo("encoder", folder)
    check_llm(folder)
    return ModelInfo("llm", folder)


def check_language_model(folder: Path, option: str) -> ModelInfo:
    """Check from headers that a directory holds a language model, or an adapter on one.

    Args:
        folder: in Hugging Face's layout, or PEFT's.
        option: the option that names it, for messages.

    Raises:
        InputError: it holds something else.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return _check_adapter(folder, ())
    config = read_config(folder)
    if {"vision_config", "text_config"} & set(config):
        raise InputError(
            f"expected a language model, got '{config['model_type']}', which has a vision part",
            where=f"{option} {folder}",
        )
    return check_model(folder, ())


def _check_adapter(folder: Path, formats: Sequence[ModelFormat]) -> ModelInfo:
    config = read_json(folder / ADAPTER_CONFIG)
    where = str(folder / ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError("base_model_name_or_path is missing", where=where)
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {str(getattr(kind, "value", kind)) for kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    if config.get("peft_type") not in known:
        raise InputError(f"PEFT knows no adapter type '{config.get('peft_type')}'", where=where)
    if not (folder / ADAPTER_MODEL).is_file() and (folder / "adapter_model.bin").is_file():
        raise InputError(
            f"no {ADAPTER_MODEL} here",
            where=str(folder),
            hint=f"convert adapter_model.bin first: priorkit convert {folder} --out ADAPTER",
        )
    read_header(folder / ADAPTER_MODEL)
    given = resolve(base, "base", ("llm", "mllm"), "model", f"{where} base_model_name_or_path")
    info = check_model(given.path, formats)
    if info.kind == "encoder" or info.adapter is not None:
        raise InputError("the base of an adapter must be a language model or multimodal model", where=where)
    return replace(info, adapter=folder, base=given)
