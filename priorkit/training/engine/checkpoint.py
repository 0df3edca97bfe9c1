"""Checkpoints: the training state in safetensors and JSON, written atomically.

A state folder holds ``step-00000250/`` folders with ``trained.safetensors`` (the trained parameters and
all buffers), ``optimizer.safetensors`` and ``progress.json``, which holds a digest of all three, so that a
changed bit is found on resume. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from priorkit.core.artifact import hash_files, replace_durably, sync
from priorkit.core.errors import InputError
from priorkit.core.process import distributed
from priorkit.core.process.runtime import rank
from priorkit.training.engine.optimizer import Optimizer

logger = logging.getLogger(__name__)

_TENSORS = ("trained", "optimizer")
_PROGRESS = "progress.json"
_DIGEST = "sha256"


@dataclass(frozen=True)
class TrainingProgress:
    """How far a run has come.

    Attributes:
        step: finished optimizer steps.
        metrics_bytes: length of the metrics file at that step; the rest is truncated on resume.
        weight: tokens or samples trained on so far.
        seconds: training time so far.
    """

    step: int
    metrics_bytes: int
    weight: int
    seconds: float


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time, while training continues.

    The tensors are copied first, which takes memory for one checkpoint and a fraction of the time of writing.

    Args:
        folder: where checkpoints go.
        keep: how many to keep; older ones are removed once a newer one is complete.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    def save(self, module: nn.Module, optimizer: Optimizer, progress: TrainingProgress) -> None:
        """Start to write the checkpoint of a step; waits for the previous one. Every process calls this."""
        tensors = {
            "trained": gather_to_cpu(_trained(module)),
            "optimizer": gather_to_cpu(_optimizer_tensors(module, optimizer)),
        }
        self.wait()
        if rank() == 0:
            self._writing = self._thread.submit(_write, self._folder, tensors, progress, self._keep)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Finish the checkpoint that is being written, however the training ends."""
        self._thread.shutdown(wait=True)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk; raises the error of writing it."""
        if self._writing is not None:
            self._writing.result()
            self._writing = None


def save_branch(
    folder: Path, module: nn.Module, optimizer: Optimizer, progress: TrainingProgress, metrics: Path
) -> None:
    """Write a checkpoint into another state folder, with the metrics so far; another training can go on from it.

    Every process calls this.

    Args:
        folder: the other state folder; an earlier checkpoint of the step is replaced.
        module, optimizer: of the run.
        progress: how far it has come.
        metrics: its metrics file.
    """
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        with metrics.open("rb") as stream:
            (folder / metrics.name).write_bytes(stream.read(progress.metrics_bytes))
    with CheckpointWriter(folder, keep=1) as writer:
        writer.save(module, optimizer, progress)
        writer.wait()


def require_checkpoint(folder: Path) -> None:
    """Check that a state folder holds a checkpoint.

    Raises:
        InputError: it does not.
    """
    if not _saved(folder):
        raise InputError(
            "the checkpoint where an export branches off is missing",
            where=str(folder),
            hint=f"remove {folder.parents[2]} to start from the beginning",
        )


def gather_to_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the first process's main memory; sharded tensors are gathered from all processes.

    Every process calls this; all but the first get an empty dict.
    """
    copies: dict[str, Tensor] = {}
    for name, value in tensors.items():
        full = distributed.local(value)
        if rank() == 0:
            copies[name] = full.detach().to("cpu", copy=True).contiguous()
    return copies


def _write(
    folder: Path, tensors: dict[str, dict[str, Tensor]], progress: TrainingProgress, keep: int
) -> None:
    def write(temporary: Path) -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, values in tensors.items():
            save_file(values, temporary / f"{name}.safetensors")
        record = {**asdict(progress), _DIGEST: _digest(temporary, progress)}
        (temporary / _PROGRESS).write_text(json.dumps(record), encoding="utf-8")
        for file in sorted(temporary.iterdir()):
            sync(file)

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{progress.step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    replace_durably(target, write)
    for old in _saved(folder)[:-keep]:
        shutil.rmtree(old)


def _digest(folder: Path, progress: TrainingProgress) -> str:
    """The SHA-256 of a checkpoint: of the digests of its tensor files, and of how far the run had come."""
    records = hash_files(folder, [f"{name}.safetensors" for name in _TENSORS])
    content = {**asdict(progress), **{name: record.sha256 for name, record in records.items()}}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(folder: Path) -> tuple[list[dict[str, Tensor]], TrainingProgress]:
    """Tensors and progress of a checkpoint.

    Raises:
        OSError, SafetensorError, ValueError, TypeError: it is damaged.
    """
    text = (folder / _PROGRESS).read_text(encoding="utf-8")
    record = json.loads(text)
    # The digest is over values: a changed last digit may be the same number.
    changed = json.dumps(record) != text
    # Checkpoints of earlier versions have none.
    digest = record.pop(_DIGEST, None)
    progress = TrainingProgress(**record)
    if changed or (digest is not None and digest != _digest(folder, progress)):
        raise ValueError("its files changed after they were written")
    return [load_file(folder / f"{name}.safetensors") for name in _TENSORS], progress


def load_latest(folder: Path, module: nn.Module, optimizer: Optimizer) -> TrainingProgress | None:
    """Load the newest undamaged checkpoint into module and optimizer.

    It is read into main memory and copied to the device tensor by tensor: all of it, moments included, would
    not fit on the device next to sharded weights.

    Returns:
        How far the run had come; None where there is no checkpoint.

    Raises:
        InputError: all checkpoints are damaged.
    """
    damaged: list[str] = []
    for path in reversed(_saved(folder)):
        try:
            (trained, moments), progress = _read(path)
        except (OSError, SafetensorError, ValueError, TypeError, AttributeError) as error:
            logger.warning(f"the saved state {path.name} is damaged and is skipped: {error}")
            damaged.append(f"{path.name}: {error}")
            continue
        current = _trained(module)
        if set(current) != set(trained):
            logger.warning(f"the saved state {path.name} is of another model and is skipped")
            continue
        with torch.no_grad():
            for name, value in current.items():
                value.copy_(distribute_like(trained[name], value))
        _load_optimizer(module, optimizer, moments)
        return progress
    if damaged:
        raise InputError(
            f"the saved state of the interrupted run is damaged ({damaged[0]})",
            where=str(folder),
            hint=f"remove {folder.parent} to start from the beginning; --keep 2 keeps another checkpoint for such a case",
        )
    return None


def _saved(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".tmp")


def distribute_like(value: Tensor, reference: Tensor) -> Tensor:
    """A full tensor on the device and, where the reference is sharded, sharded as the reference is."""
    mesh = getattr(reference, "device_mesh", None)
    if mesh is None:
        return value.to(reference.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, mesh, reference.placements)  # pyright: ignore[reportAttributeAccessIssue]


def _trained(module: nn.Module) -> dict[str, Tensor]:
    tensors = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}
    persistent = module.state_dict(keep_vars=True)
    return tensors | {name: value for name, value in module.named_buffers() if name in persistent}


def _optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{names[parameter]}|{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for parameter, state in optimizer.states()
        for key, value in state.items()
    }


def _load_optimizer(module: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        owner, _, key = name.rpartition("|")
        parameter = parameters[owner]
        optimizer.state_of(parameter)[key] = (
            distribute_like(value, parameter) if value.ndim else value.to(parameter.device)
        )
