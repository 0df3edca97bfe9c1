"""Models of transformers whose weights are PyTorch files, and bare state dicts with a model to take the rest from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorkit.conversion.conversion import Conversion, check_fit, kind_of
from priorkit.conversion.tensors import DTYPES, NewTensor, stored
from priorkit.conversion.torch_files import SUFFIXES, read_state_dict
from priorkit.core.errors import InputError, Problems, library_reads
from priorkit.core.safetensors_header import read_header
from priorkit.inference.model_info import ADAPTER_CONFIG, ADAPTER_MODEL
from priorkit.models.folder import copy_companions, note_dtype, read_json, tensor_files
from priorkit.models.vision.processor_settings import PROCESSOR_FILES, check_processor
from priorkit.models.vision.towers import register_tower

NOT_WEIGHTS = (
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
)
"""Files that training scripts leave next to a model's weights."""


def weight_files(path: Path) -> list[Path]:
    """The files of weights: the file itself, the shards that an index names, or a folder's PyTorch files.

    Raises:
        InputError: none, or a shard is missing.
    """
    if path.is_file():
        return [path]
    indices = sorted(path.glob("*.bin.index.json"))
    if indices:
        names = sorted(set(map(str, read_json(indices[0]).get("weight_map", {}).values())))
        problems = Problems(InputError)
        for name in names:
            if Path(name).name != name or not (path / name).is_file():
                problems.add(f"{indices[0].name} names {name}, which is not here", where=str(path))
        problems.raise_if_any()
        return [path / name for name in names]
    files = sorted(
        file
        for file in path.iterdir()
        if file.suffix.lower() in SUFFIXES and file.name not in NOT_WEIGHTS and file.is_file()
    )
    if not files:
        raise InputError(f"no file of weights here ({', '.join(SUFFIXES)})", where=str(path))
    return files


def read_weights(path: Path) -> dict[str, NewTensor]:
    """The tensors of all files of weights, by name; those of archives and of safetensors are read when written.

    Raises:
        InputError: a file is damaged or refused, or two files hold the same name.
    """
    tensors: dict[str, NewTensor] = {}
    for file in weight_files(path):
        found = (
            _from_safetensors(file) if file.suffix == ".safetensors" else stored(read_state_dict(file), file)
        )
        twice = sorted(tensors.keys() & found)
        if twice:
            raise InputError(
                f"'{twice[0]}' is in two files of weights", where=str(file), hint="name one file"
            )
        tensors |= found
    return tensors


def _from_safetensors(file: Path) -> dict[str, NewTensor]:
    from safetensors import safe_open

    def read(name: str) -> Tensor:
        with safe_open(file, framework="pt") as stream:
            return stream.get_tensor(name)

    types = {name: dtype for dtype, name in DTYPES.items()}
    header = read_header(file)
    other = sorted(name for name, info in header.items() if info.dtype not in types)
    if other:
        raise InputError(f"'{other[0]}' is a tensor of type {header[other[0]].dtype}", where=str(file))
    return {
        name: NewTensor(types[info.dtype], info.shape, lambda name=name: read(name))
        for name, info in header.items()
    }


def plan_transformers(path: Path, config: Path | None, dtype: torch.dtype | None) -> Conversion:
    """Plan the conversion of weights that have transformers' names.

    Args:
        path: a folder with ``config.json``, or only weights.
        config: the folder of a model whose configuration and companions belong to the weights.
        dtype: of the result; None keeps the types.

    Raises:
        InputError: no configuration, or the weights do not fit it.
    """
    folder = config or (path if path.is_dir() else path.parent)
    if config is None and (folder / ADAPTER_CONFIG).is_file():
        return _plan_adapter(path, folder, dtype)
    if not (folder / "config.json").is_file():
        raise InputError(
            "there is no config.json with these weights",
            where=str(path),
            hint="name a model of the same architecture with --config",
        )
    model_config = _read_config(folder)
    kind = kind_of(model_config, str(folder))
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in read_weights(path).items()}
    unused = check_fit(kind, model_config, tensors, str(path))
    kept = _without_copies(
        {name: tensor for name, tensor in tensors.items() if name not in unused}, model_config, kind
    )

    def write_rest(target: Path) -> None:
        copy_companions([folder], target, with_config=True)
        if dtype is not None:
            note_dtype(target, str(dtype).removeprefix("torch."))

    return Conversion(
        kind,
        f"{model_config.model_type} of transformers, {len(kept)} tensors",
        lambda: kept,
        sum(tensor.bytes for tensor in kept.values()),
        write_rest,
    )


_TOWERS = (
    "vision_model.",
    "model.vision_model.",
    "vision_tower.",
    "model.vision_tower.",
    "vision_tower.vision_model.",
)
"""What multimodal models put before the names of their image tower's tensors."""


def plan_image_tower(path: Path, dtype: torch.dtype | None) -> Conversion:
    """Plan to write the image tower of a multimodal model as an encoder.

    Args:
        path: the model's folder; PyTorch files or safetensors.
        dtype: of the result; None keeps the types.

    Raises:
        InputError: the model has no image tower, or no preprocessing.
    """
    if not (path / "config.json").is_file():
        raise InputError("a model's folder is needed, with its config.json", where=str(path))
    config = _read_config(path)
    vision = getattr(config, "vision_config", None)
    if vision is None:
        raise InputError(f"'{config.model_type}' has no image tower", where=str(path))
    check_processor(path)
    register_tower(vision.model_type)
    kept = kind_of(vision, str(path))
    every = _shards_of_safetensors(path) or read_weights(path)
    for lead in sorted(_TOWERS, key=len, reverse=True):
        found = {name.removeprefix(lead): tensor for name, tensor in every.items() if name.startswith(lead)}
        if found:
            break
    else:
        raise InputError("no tensors of an image tower here", where=str(path))
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in found.items()}
    unused = check_fit(kept, vision, tensors, str(path))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}

    def write_rest(target: Path) -> None:
        vision.dtype = next(iter(tensors.values())).dtype
        vision.save_pretrained(target)
        for name in PROCESSOR_FILES:
            if (path / name).is_file():
                shutil.copyfile(path / name, target / name)

    size = sum(tensor.bytes for tensor in tensors.values())
    source = f"image tower of {config.model_type} ({vision.model_type}), {len(tensors)} tensors"
    return Conversion("encoder", source, lambda: tensors, size, write_rest)


def _shards_of_safetensors(path: Path) -> dict[str, NewTensor]:
    """The tensors of a folder's safetensors; none where it has other files only."""
    files = (
        sorted({info.file for info in tensor_files(path).values()}) if any(path.glob("*.safetensors")) else []
    )
    return {name: tensor for file in files for name, tensor in _from_safetensors(file).items()}


def _plan_adapter(path: Path, folder: Path, dtype: torch.dtype | None) -> Conversion:
    """Plan the conversion of an adapter of PEFT, whose names stay as they are."""
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in read_weights(path).items()}

    def write_rest(target: Path) -> None:
        copy_companions([folder], target, with_config=False)
        (target / ADAPTER_CONFIG).write_bytes((folder / ADAPTER_CONFIG).read_bytes())

    size = sum(tensor.bytes for tensor in tensors.values())
    source = f"adapter of PEFT, {len(tensors)} tensors"
    return Conversion("adapter", source, lambda: tensors, size, write_rest, ADAPTER_MODEL)


def _read_config(folder: Path) -> Any:
    from transformers import AutoConfig

    with library_reads("its configuration cannot be read", str(folder / "config.json")):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _without_copies(tensors: Mapping[str, NewTensor], config: Any, kind: str) -> Mapping[str, NewTensor]:
    """The tensors without the copies of tied ones, which transformers makes again from the one that is kept."""
    if kind != "llm" or not getattr(config, "tie_word_embeddings", False):
        return tensors
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        tied: Mapping[str, str] = AutoModelForCausalLM.from_config(config).all_tied_weights_keys
    copies = {name for name, source in tied.items() if name in tensors and source in tensors}
    same = {name for name in copies if torch.equal(tensors[name].read(), tensors[tied[name]].read())}
    return {name: tensor for name, tensor in tensors.items() if name not in same}
