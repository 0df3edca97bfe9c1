"""The one loop: steps, gradients, checkpoints, guards. Objectives know batches and losses.

Sample *k* of the stream is a pure function of (seed, *k*), so the resume state is one integer, and the
order depends neither on the number of processes nor on the number of workers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from priorkit.core.console import console
from priorkit.core.errors import GuardError, InputError, Interrupted, UsageError
from priorkit.core.runtime import Runtime, rank, world_size
from priorkit.data.order import sample_ids
from priorkit.training import checkpoint, parallel
from priorkit.training.objective import Objective, to_device
from priorkit.training.settings import TrainingSettings

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Summary:
    """What a training run came to.

    Attributes:
        steps: optimiser steps.
        weight: tokens or samples learnt from.
        loss: mean loss over the last tenth of the steps, weighted by tokens or samples.
        seconds: time spent in training, over all resumed parts.
    """

    steps: int
    weight: int
    loss: float
    seconds: float


def train(
    objective: Objective,
    settings: TrainingSettings,
    runtime: Runtime,
    folder: Path,
    state: Path,
    total_steps: int,
    title: str,
) -> Summary:
    """Train an objective's module to the end, resuming from a saved state where there is one.

    Args:
        objective: batches and losses; its module already lies on the runtime's device.
        settings: optimisation, checkpoints, workers.
        runtime: device and precision.
        folder: where ``metrics.jsonl`` goes: a line per step without any time in it.
        state: where training states go.
        total_steps: the number of optimiser steps.
        title: what the progress bar is called.

    Raises:
        GuardError: the loss or a gradient is not finite.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved.
        InputError: there are no samples.
        UsageError: the batch cannot be shared among the processes.
    """
    _check(objective, settings)
    parallel.start(runtime)
    trained = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(objective, settings)
    progress = checkpoint.restore(state, objective.module, optimizer, runtime.device)
    progress = progress or checkpoint.Progress(0, 0, 0, 0.0)
    if progress.step:
        console.say(f"resuming at step {progress.step} of {total_steps}")
    log = _Log(state / METRICS, progress.metrics_bytes)
    weight_so_far, begun = progress.weight, time.monotonic() - progress.seconds
    objective.module.train()
    steps = range(progress.step, total_steps)
    loader = _loader(objective, settings, steps)
    with (
        _signals() as stopping,
        console.progress(title, total_steps, progress.step, "step") as bar,
    ):
        for step, batches in zip(steps, loader, strict=True):
            rate = settings.learning_rate_at(step, total_steps)
            # Dropout, where a model has it, is a function of the step, so that a resumed run repeats it.
            torch.manual_seed((settings.seed << 31) + step * world_size() + rank())
            for group in optimizer.param_groups:
                group["lr"] = rate * group["learning_rate_scale"]
            sums = _backward(objective, batches, runtime)
            parallel.sum_gradients(trained)
            norm = _clip(trained, settings.clip)
            if not math.isfinite(sums["loss"]) or not math.isfinite(norm):
                _refuse(objective.module, step, sums["loss"], settings, len(objective))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            weight = int(sums.pop("weight"))
            weight_so_far += weight
            log.write(
                {
                    "step": step + 1,
                    objective.unit: weight_so_far,
                    "learning_rate": rate,
                    "gradient_norm": norm,
                    **sums,
                },
                weight,
            )
            seconds = time.monotonic() - begun
            bar.note(f"loss {sums['loss']:.4f}  {weight_so_far / seconds:,.0f} {objective.unit}/s")
            bar.advance()
            last = step + 1 == total_steps
            stop = parallel.any_process(bool(stopping), runtime.device)
            if (step + 1) % settings.checkpoint_every == 0 or stop or last:
                if rank() == 0:
                    mark = checkpoint.Progress(step + 1, log.flush(), weight_so_far, seconds)
                    checkpoint.save(state, objective.module, optimizer, mark, settings.keep)
                parallel.barrier()
            if stop and not last:
                raise Interrupted(
                    f"interrupted at step {step + 1} of {total_steps}; the state is saved",
                    hint="run the same command again to go on",
                )
    parallel.barrier()
    objective.module.eval()
    if rank() == 0:
        shutil.copyfile(state / METRICS, folder / METRICS)
    return Summary(total_steps, weight_so_far, log.recent(total_steps), time.monotonic() - begun)


def build_optimizer(objective: Objective, settings: TrainingSettings) -> torch.optim.Optimizer:
    """AdamW over the trained parameters; matrices decay, vectors do not; one group per learning rate."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in objective.module.named_parameters():
        if parameter.requires_grad:
            key = (objective.learning_rate_scale(name), parameter.ndim >= 2)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decays else 0.0,
                "learning_rate_scale": scale,
            }
            for (scale, decays), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        fused=True,
    )


def _check(objective: Objective, settings: TrainingSettings) -> None:
    if len(objective) == 0:
        raise InputError("there are no samples to learn from")
    if not any(parameter.requires_grad for parameter in objective.module.parameters()):
        raise UsageError("nothing is set to be trained", hint="see --train")
    if settings.batch_size % world_size():
        raise UsageError(
            f"--batch-size {settings.batch_size} cannot be shared among {world_size()} processes",
            hint="choose a multiple of the number of processes",
        )


class _Stream(Dataset[Any]):
    """The micro-batches of one process, a list per step, as a dataset indexed by step."""

    def __init__(self, objective: Objective, settings: TrainingSettings, steps: range) -> None:
        self._objective, self._settings, self._steps = objective, settings, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> list[Any]:
        settings = self._settings
        positions = positions_of(self._steps[number], settings.batch_size)
        ids = sample_ids(settings.seed, positions.start, positions.stop, len(self._objective))
        own = parallel.share(settings.batch_size)
        samples = [self._objective.sample(int(ids[i]), positions[i]) for i in own]
        size = settings.micro_batch_size or len(samples)
        return [self._objective.collate(samples[i : i + size]) for i in range(0, len(samples), size)]


def positions_of(step: int, batch_size: int) -> range:
    """The positions in the sample stream that a step (counted from 0) learns from."""
    return range(step * batch_size, (step + 1) * batch_size)


def _loader(objective: Objective, settings: TrainingSettings, steps: range) -> Iterator[list[Any]]:
    loader = DataLoader(
        _Stream(objective, settings, steps),
        batch_size=None,
        num_workers=settings.workers,
        persistent_workers=False,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=_start_worker,
    )
    return iter(loader)


def _start_worker(number: int) -> None:
    """Leave signals to the main process, which finishes its step; no threads of tokenizers after a fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _backward(objective: Objective, batches: Sequence[Any], runtime: Runtime) -> dict[str, float]:
    """Accumulate the gradient of a step over its micro-batches.

    Returns:
        ``weight`` of the step over all processes, and the means of the loss and the metrics.
    """
    own = sum(objective.weight(batch) for batch in batches)
    weight = max(
        1.0, parallel.total(torch.tensor(float(own), dtype=torch.float64, device=runtime.device)).item()
    )
    sums: dict[str, Tensor] = {}
    for batch in batches:
        with runtime.autocast():
            loss = objective.loss(to_device(batch, runtime.device))
        # A micro-batch may use nothing of what is trained, as one without images does when a projector is.
        if loss.total.requires_grad:
            (loss.total / weight).backward()
        for name, value in {"loss": loss.total, **loss.metrics}.items():
            sums[name] = sums.get(name, torch.zeros((), device=runtime.device)) + value.detach().float()
    stacked = parallel.total(torch.stack(list(sums.values()))).tolist()
    return {"weight": weight, **{name: value / weight for name, value in zip(sums, stacked, strict=True)}}


def _clip(parameters: list[nn.Parameter], limit: float) -> float:
    norm = nn.utils.clip_grad_norm_(parameters, limit if limit > 0 else math.inf)
    return float(norm)


def _refuse(module: nn.Module, step: int, loss: float, settings: TrainingSettings, samples: int) -> None:
    """Stop on a non-finite loss or gradient, naming where it came from."""
    positions = positions_of(step, settings.batch_size)
    ids = sample_ids(settings.seed, positions.start, positions.stop, samples)
    first = next(
        (
            f"the gradient of {name}"
            for name, parameter in module.named_parameters()
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())
        ),
        "the loss",
    )
    shown = ", ".join(str(int(index)) for index in ids[:8]) + (", ..." if len(ids) > 8 else "")
    raise GuardError(
        f"step {step + 1}: loss {loss}; the first non-finite tensor is {first}; samples {shown}",
        hint="the last good state is kept; lower --learning-rate, lengthen --warmup-steps or look at the samples",
    )


class _Log:
    """The metrics file: a JSON line per step, without times, so that reruns give the same bytes."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._losses: list[tuple[float, float]] = []
        self._lines: list[str] = []
        if rank() == 0 and path.is_file():
            content = path.read_bytes()[:size]
            path.write_bytes(content)
            for line in content.splitlines():
                row = json.loads(line)
                self._losses.append((row["loss"], row["weight"]))

    def write(self, row: dict[str, Any], weight: int) -> None:
        self._losses.append((row["loss"], weight))
        if rank() == 0:
            self._lines.append(json.dumps({**row, "weight": weight}) + "\n")

    def flush(self) -> int:
        """Append what is waiting; returns the file's length in bytes."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._lines)
        self._lines.clear()
        return self._path.stat().st_size

    def recent(self, steps: int) -> float:
        tail = self._losses[-max(1, steps // 10) :]
        weight = sum(w for _, w in tail)
        return sum(loss * w for loss, w in tail) / weight if weight else math.nan


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is finished and the state saved before stopping."""
    received: list[int] = []

    def handler(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        console.say("stopping after this step; once more stops at once")

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
