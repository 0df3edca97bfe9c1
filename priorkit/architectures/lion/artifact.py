"""LION's adapter artifact, checked from headers: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.inputs import Input, resolve
from priorkit.core.safetensors_header import read_header
from priorkit.inference.model_info import ADAPTER_CONFIG, ADAPTER_MODEL
from priorkit.models.folder import read_json

PEFT_TYPE = "LION"

_KEYS = ("base_model_name_or_path", "stage", "lion", "base")


def is_lion_adapter(folder: Path) -> bool:
    """Whether a folder is a LION adapter, complete or not."""
    path = folder / ADAPTER_CONFIG
    return path.is_file() and read_json(path).get("peft_type") == PEFT_TYPE


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """A LION adapter's configuration, with its tensors' header checked.

    Raises:
        InputError: no LION adapter, or an incomplete one.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    where = str(folder / ADAPTER_CONFIG)
    if config.get("peft_type") != PEFT_TYPE:
        raise InputError(f"expected a LION adapter, got peft_type '{config.get('peft_type')}'", where=where)
    missing = [name for name in _KEYS if name not in config]
    if missing:
        raise InputError(f"{', '.join(missing)} missing", where=where)
    read_header(folder / ADAPTER_MODEL)
    return config


def base_of(folder: Path) -> Input:
    """The base model that a LION adapter names.

    Raises:
        InputError: it is not found.
    """
    config = read_adapter_config(folder)
    where = f"{folder / ADAPTER_CONFIG} base_model_name_or_path"
    return resolve(str(config["base_model_name_or_path"]), "base", ("mllm",), "model", where)
