"""Model folders in Hugging Face's layout: what is in them, told from headers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.safetensors_header import TensorInfo, read_header


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.name} is missing", where=str(path.parent)) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"not readable as JSON: {error}", where=str(path)) from None
    if not isinstance(value, dict):
        raise InputError(f"expected a JSON object, got {type(value).__name__}", where=str(path))
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's ``config.json``.

    Raises:
        InputError: the folder is not a model in Hugging Face's layout.
    """
    if not folder.is_dir():
        raise InputError("a model is a directory in Hugging Face's layout", where=str(folder))
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise InputError("config.json names no model_type", where=str(folder))
    return config


def weight_count(folder: Path, without: str = "") -> int:
    """How many values a model's tensors hold.

    Args:
        folder: the model's.
        without: tensors whose first name holds this word are not counted.

    Raises:
        InputError: as :func:`tensor_files`.
    """
    return sum(
        tensor.count
        for name, tensor in tensor_files(folder).items()
        if not without or without not in name.split(".")[0]
    )


def tensor_files(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a model folder, single file or sharded, from headers alone.

    Raises:
        InputError: no safetensors, a shard missing or damaged, or only pickled weights.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        paths = [folder / name for name in shards if Path(name).name == name]
    elif (folder / "model.safetensors").is_file():
        paths = [folder / "model.safetensors"]
    else:
        pickled = sorted(item.name for item in folder.glob("*.bin"))
        hint = (
            f"{pickled[0]} is a pickle, which is never opened here; convert it to safetensors with "
            "save_pretrained(..., safe_serialization=True)"
            if pickled
            else ""
        )
        raise InputError("no model.safetensors here", where=str(folder), hint=hint)
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        tensors.update(read_header(path))
    return tensors
