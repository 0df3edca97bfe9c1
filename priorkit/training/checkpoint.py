"""Training state on disk: safetensors and JSON, written whole or not at all.

A state folder holds ``step-00000250/`` folders with ``trained.safetensors`` (the trained parameters and
all buffers), ``optimizer.safetensors`` and ``progress.json``. Nothing is pickled.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from priorkit.core.artifact import replace_durably, sync
from priorkit.core.console import console


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: finished optimiser steps.
        metrics_bytes: length of the metrics file at that step; what follows is cut off on resume.
        weight: tokens or samples learnt from so far.
        seconds: training time so far.
    """

    step: int
    metrics_bytes: int
    weight: int
    seconds: float


def save(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, keep: int
) -> None:
    """Save the state of a step; older states beyond ``keep`` are removed afterwards."""

    def write(temporary: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(_trained(module), temporary / "trained.safetensors")
        save_file(_optimizer_tensors(module, optimizer), temporary / "optimizer.safetensors")
        (temporary / "progress.json").write_text(json.dumps(asdict(progress)), encoding="utf-8")
        for file in temporary.iterdir():
            sync(file)

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{progress.step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    replace_durably(target, write)
    for old in _saved(folder)[:-keep]:
        shutil.rmtree(old)


def restore(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> Progress | None:
    """Load the newest readable state into the module and the optimiser.

    Returns:
        Where the run stood; None where there is no state.
    """
    for path in reversed(_saved(folder)):
        try:
            trained = load_file(path / "trained.safetensors", device=str(device))
            moments = load_file(path / "optimizer.safetensors", device=str(device))
            progress = Progress(**json.loads((path / "progress.json").read_text(encoding="utf-8")))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            console.warn(f"the saved state {path.name} cannot be read and is passed over: {error}")
            continue
        own = _trained(module)
        if set(own) != set(trained):
            console.warn(f"the saved state {path.name} is of another model and is passed over")
            continue
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(trained[name])
        _load_optimizer(module, optimizer, moments)
        return progress
    return None


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".tmp")


def _trained(module: nn.Module) -> dict[str, Tensor]:
    tensors = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    kept = module.state_dict(keep_vars=True)
    tensors |= {name: value for name, value in module.named_buffers() if name in kept}
    return {name: value.contiguous() for name, value in tensors.items()}


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def _load_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        owner, _, key = name.rpartition("|")
        optimizer.state[parameters[owner]][key] = value
