"""A training run in this process: gradients, the optimizer's steps, the guard, and how far it has come."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime, rank, world_size
from priorkit.training.engine import checkpoint, guard
from priorkit.training.engine.metrics_log import METRICS, MetricsLog
from priorkit.training.engine.optimizer import Optimizer
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective, to_device

SPIKE_STEPS = 50
"""Number of recent steps whose losses define a spike."""


@dataclass(frozen=True)
class TrainingSummary:
    """The outcome of a training run.

    Attributes:
        steps: optimizer steps.
        weight: tokens or samples trained on.
        loss: mean loss over the last tenth of the steps, weighted by tokens or samples.
        seconds: time spent in training, over all resumed parts.
        cost: figures of this process that differ from run to run: the throughput, and the shares of the
            time spent waiting for data and writing checkpoints.
    """

    steps: int
    weight: int
    loss: float
    seconds: float
    cost: dict[str, float]


class TrainingRun:
    """A training in this process: what a step changes, and how far it has come.

    Attributes:
        log: of the metrics.
        clock: where the time goes.
        weight: tokens or samples trained on so far.

    Args:
        objective: batches and losses.
        settings: optimisation.
        runtime: device and precision.
        optimizer: of the trained parameters.
        saver: writes checkpoints.
        state: folder of the checkpoints and the log.
        progress: where the run starts or resumes.
    """

    def __init__(
        self,
        objective: Objective,
        settings: TrainingSettings,
        runtime: Runtime,
        optimizer: Optimizer,
        saver: checkpoint.CheckpointWriter,
        state: Path,
        progress: checkpoint.TrainingProgress,
    ) -> None:
        self.log = MetricsLog(state / METRICS, progress.metrics_bytes)
        self.clock = Clock(progress.seconds)
        self.weight = progress.weight
        self._objective, self._settings, self._runtime = objective, settings, runtime
        self._optimizer, self._saver, self._metrics = optimizer, saver, state / METRICS
        self._saved = progress.step
        self._trained = [parameter for parameter in objective.module.parameters() if parameter.requires_grad]

    @property
    def speed(self) -> float:
        """Tokens or samples per second."""
        return self.weight / self.clock.seconds

    def update(self, step: int, batches: Sequence[Any], rate: float) -> tuple[dict[str, float], int]:
        """Take an optimizer step.

        Args:
            step: number of the finished steps.
            batches: the step's micro-batches.
            rate: learning rate.

        Returns:
            The learning rate, the gradient norm, the loss and the other metrics; and the step's tokens or samples.

        Raises:
            GuardError: the loss or a gradient is not finite, or the loss spikes.
        """
        self._optimizer.set_learning_rate(rate)
        # Dropout is a function of the step, so that a resumed run repeats it.
        torch.manual_seed((self._settings.seed << 31) + step * world_size() + rank())
        accumulated = forward_backward(self._objective, batches, self._runtime)
        distributed.sum_gradients(self._trained)
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        total_norm = nn.utils.get_total_norm(gradients)
        means, norm = accumulated.read(distributed.local(total_norm))
        self._guard(step, batches, means["loss"], norm)
        # After the guard: scaling by a norm that is not finite would hide its origin.
        if self._settings.clip:
            nn.utils.clip_grads_with_norm_(self._trained, self._settings.clip, total_norm)
        self._optimizer.step()
        weight = int(accumulated.weight)
        self.weight += weight
        return {"learning_rate": rate, "gradient_norm": norm, **means}, weight

    def _guard(self, step: int, batches: Sequence[Any], loss: float, norm: float) -> None:
        """Stop, with the state of the steps before saved, where loss or gradient cannot be trusted."""
        problem = guard.describe_spike(loss, self.log.last(SPIKE_STEPS), self._settings.spike_limit)
        finite = math.isfinite(loss) and math.isfinite(norm)
        if not finite:
            tensor = guard.first_non_finite_tensor(self._objective, batches, self._runtime)
            problem = f"loss {loss}; the first non-finite tensor is {tensor}"
        if problem:
            self.save(step)
            self._saver.wait()
            raise guard.guard_error(problem, self._objective, self._settings, step, finite)

    def save(self, finished: int) -> None:
        """Write a checkpoint after so many steps, unless there is one."""
        if finished != self._saved:
            self._saved = finished
            with self.clock.spent("checkpoint"):
                self._saver.save(self._objective.module, self._optimizer, self._reached(finished))

    def branch_off(self, finished: int, folder: Path) -> None:
        """Write a checkpoint from which another training can go on."""
        with self.clock.spent("checkpoint"):
            checkpoint.save_branch(
                folder, self._objective.module, self._optimizer, self._reached(finished), self._metrics
            )

    def _reached(self, finished: int) -> checkpoint.TrainingProgress:
        size = self.log.flush() if rank() == 0 else 0
        return checkpoint.TrainingProgress(finished, size, self.weight, self.clock.seconds)

    def summary(self, steps: int) -> TrainingSummary:
        """The outcome after all steps."""
        cost = {
            "training_seconds": self.clock.seconds,
            f"{self._objective.unit}_per_second": self.speed,
            "data_wait_share": self.clock.share("data"),
            "checkpoint_share": self.clock.share("checkpoint"),
            **gpu_memory(self._runtime),
        }
        return TrainingSummary(steps, self.weight, self.log.final_loss(steps), self.clock.seconds, cost)


class Clock:
    """Measures where the time goes.

    Args:
        before: seconds of training before the run was resumed.
    """

    def __init__(self, before: float) -> None:
        self._before, self._begun = before, time.monotonic()
        self._parts: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all resumed parts."""
        return self._before + time.monotonic() - self._begun

    @contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        begun = time.monotonic()
        yield
        self._parts[part] = self._parts.get(part, 0.0) + time.monotonic() - begun

    def share(self, part: str) -> float:
        """A part's share of the time since this process started to train."""
        return self._parts.get(part, 0.0) / max(time.monotonic() - self._begun, 1e-9)


def gpu_memory(runtime: Runtime) -> dict[str, float]:
    """Peak GPU memory so far."""
    if runtime.device.type != "cuda":
        return {}
    return {"peakgpu_memory_bytes": torch.cuda.max_memory_allocated(runtime.device)}


@dataclass(frozen=True)
class AccumulatedStep:
    """What a step's micro-batches summed up to, still on the device.

    Attributes:
        weight: tokens or samples of the step, over all processes; at least 1.
        sums: fp32 scalars, sums over all processes of the loss and the metrics.
    """

    weight: float
    sums: dict[str, Tensor]

    def read(self, norm: Tensor) -> tuple[dict[str, float], float]:
        """The means of the loss and the metrics, and the gradient norm: the only read of the device in a step."""
        sums = torch.stack(list(self.sums.values()))
        *totals, norm_read = torch.cat([sums, norm.detach().to(sums)[None]]).tolist()
        return {name: value / self.weight for name, value in zip(self.sums, totals, strict=True)}, norm_read


def forward_backward(objective: Objective, batches: Sequence[Any], runtime: Runtime) -> AccumulatedStep:
    """Accumulate the gradient of a step over its micro-batches."""
    local_weight = sum(objective.weight(batch) for batch in batches)
    # Weights are known in main memory, so that no process waits for its GPU here.
    weight = max(1.0, distributed.total(torch.tensor(float(local_weight), dtype=torch.float64)).item())
    # Sharded parameters' gradients come back as means over the processes, not as sums.
    scale = distributed.gradient_scale(objective.module) / weight
    sums: dict[str, Tensor] = {}
    for batch in batches:
        with runtime.autocast():
            loss = objective.loss(to_device(batch, runtime.device))
        # A micro-batch may use no trained parameter, such as one without images where only the projector is trained.
        if loss.total.requires_grad:
            (loss.total * scale).backward()
        for name, value in {"loss": loss.total, **loss.metrics}.items():
            sums[name] = sums.get(name, torch.zeros((), device=runtime.device)) + value.detach().float()
    stacked = distributed.total(torch.stack(list(sums.values())))
    return AccumulatedStep(weight, dict(zip(sums, stacked.unbind(), strict=True)))
