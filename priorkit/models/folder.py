"""Model folders in Hugging Face's layout: configuration and tensors, read from headers only."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.core.json_text import UnusableJsonError, parse_json
from priorkit.core.safetensors_header import TensorInfo, read_header


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or not a JSON object.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"))
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
    refuse_surrogates(folder)
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise InputError("config.json has no model_type", where=str(folder))
    return config


_LARGE_JSON = ("tokenizer.json", "vocab.json", "model.safetensors.index.json")
"""Files that transformers does not keep as text: the tokenizers library refuses lone surrogates in them."""


def refuse_surrogates(folder: Path) -> None:
    """Refuse a model or tokenizer whose settings hold lone surrogates, which transformers loads and no file takes.

    Raises:
        InputError: naming the file and the text.
    """
    problems = Problems(InputError)
    for path in sorted(folder.glob("*.json")):
        if path.name in _LARGE_JSON or not path.is_file():
            continue
        try:
            parse_json(path.read_bytes())
        except UnusableJsonError as error:
            problems.add(error.msg, where=str(path), hint="correct it")
        except (OSError, ValueError):
            continue  # whoever reads the file says so
    problems.raise_if_any()


def parameter_count(folder: Path, exclude: str = "") -> int:
    """The number of parameters of a model.

    Args:
        folder: of the model.
        exclude: tensors with this word in the first part of their name are not counted.

    Raises:
        InputError: as :func:`tensor_files`.
    """
    return sum(
        tensor.count
        for name, tensor in tensor_files(folder).items()
        if not exclude or exclude not in name.split(".")[0]
    )


CONVERTIBLE = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf")
"""Files of weights that ``convert`` reads; no other step opens them."""


def _conversion_hint(folder: Path) -> str:
    """What to do with a folder whose weights are in another format."""
    others = sorted(item.name for pattern in CONVERTIBLE for item in folder.glob(pattern))
    if others:
        return f"convert {others[0]} first: priorkit convert {folder} --out MODEL"
    # Of a hub model only safetensors were fetched: CACHE/models--OWNER--NAME/snapshots/COMMIT.
    cached = folder.parent.parent.name
    if folder.parent.name == "snapshots" and cached.startswith("models--"):
        name = cached.removeprefix("models--").replace("--", "/")
        return f"weights in another format are converted first: priorkit convert {name} --out MODEL"
    return ""


def tensor_files(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a model folder, single file or sharded, from headers only.

    Raises:
        InputError: no safetensors, a shard missing or damaged, or only pickled weights.
    """
    index = folder / "model.safetensors.index.json"
    # As transformers: the single file counts where an index lies next to it.
    if (folder / "model.safetensors").is_file():
        paths = [folder / "model.safetensors"]
    elif index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        paths = [folder / name for name in shards if Path(name).name == name]
    else:
        raise InputError("no model.safetensors here", where=str(folder), hint=_conversion_hint(folder))
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        tensors.update(read_header(path))
    return tensors


_NOT_CARRIED = ("priorkit.json", "recipe.toml", "merge.json", "model.safetensors.index.json")
_CARRIED = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_ADAPTER_FILES = ("adapter_config.json",)


def copy_companions(folders: Sequence[Path], target: Path, with_config: bool) -> list[str]:
    """Copy what belongs to a model in addition to its weights: tokenizer, processor, chat template, generation.

    Files of earlier folders win; later ones only fill gaps.

    Args:
        folders: where to take files from, the most important first.
        target: where to put them.
        with_config: whether ``config.json`` and ``generation_config.json`` belong to the result.

    Returns:
        The names copied.
    """
    copied: dict[str, Path] = {}
    for folder in folders:
        files = [*folder.iterdir(), *(folder / "additional_chat_templates").glob("*.jinja")]
        for file in sorted(files):
            name = file.relative_to(folder).as_posix()
            if not file.is_file() or file.suffix not in _CARRIED or name in copied:
                continue
            if name in _NOT_CARRIED or name in _ADAPTER_FILES or name.endswith(".index.json"):
                continue
            if name in ("config.json", "generation_config.json") and not with_config:
                continue
            copied[name] = file
    for name, file in copied.items():
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target / name)
    return list(copied)


def note_dtype(folder: Path, dtype: str) -> None:
    """Note another type of the weights in ``config.json``, also for the parts of a multimodal model."""
    config = read_json(folder / "config.json")

    def note(table: dict[str, Any], top: bool) -> None:
        for key in ("dtype", "torch_dtype"):
            if key in table or (top and key == "dtype"):
                table[key] = dtype
        for value in table.values():
            if isinstance(value, dict):
                note(cast("dict[str, Any]", value), top=False)

    note(config, top=True)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
