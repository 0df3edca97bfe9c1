"""The training loop: steps, gradients, checkpoints, the guard. Objectives know batches and losses.

Sample *k* of the stream is a pure function of (seed, *k*), so the resume state is one integer, and the
order depends neither on the number of processes nor on the number of workers.
"""

from __future__ import annotations

import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import InputError, Interrupted, UsageError
from priorkit.core.process import distributed
from priorkit.core.process.progress import progress_bar
from priorkit.core.process.runtime import Runtime, rank, return_freed_memory, world_size
from priorkit.training.engine import checkpoint, guard
from priorkit.training.engine.metrics_log import METRICS, MetricsLog
from priorkit.training.engine.micro_batches import load_micro_batches
from priorkit.training.engine.optimizer import Optimizer, build_optimizer
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.engine.trackers import open_trackers
from priorkit.training.objectives.base import Objective, to_device

logger = logging.getLogger(__name__)

SPIKE_STEPS = 50
"""Number of recent steps whose losses define a spike."""

RETURN_MEMORY_EVERY = 50
"""Steps on CPUs between returns of freed memory to the system."""

AfterStep = Callable[[int, int], Mapping[str, float]]
"""Called after every step with the number of finished steps and of tokens or samples trained on so far;
the metrics it returns are logged with the step. It must depend only on these numbers and the weights."""


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


def train(
    objective: Objective,
    settings: TrainingSettings,
    runtime: Runtime,
    folder: Path,
    state: Path,
    total_steps: int,
    title: str,
    after_step: AfterStep | None = None,
    branches: Sequence[tuple[int, Path]] = (),
    learning_rate_at: Callable[[int], float] | None = None,
) -> TrainingSummary:
    """Train an objective's module to the end, resuming from a saved state where there is one.

    Args:
        objective: batches and losses; its module is already on the runtime's device.
        settings: optimisation, checkpoints, workers.
        runtime: device and precision.
        folder: where ``metrics.jsonl`` goes: a line per step, without times.
        state: where checkpoints go.
        total_steps: the number of optimizer steps.
        title: of the progress bar.
        after_step: called after every step, for example to measure the validation loss.
        branches: finished steps with a state folder each, where a checkpoint is written from which another training
            can go on.
        learning_rate_at: the learning rate of a step, counted from 0; the settings' schedule where None.

    Raises:
        GuardError: the loss or a gradient is not finite, or the loss spikes.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved.
        InputError: there are no samples.
        UsageError: the batch cannot be split among the processes.
    """
    _check_trainable(objective, settings)
    settings.warn_of_long_warmup(total_steps)
    distributed.start(runtime)
    optimizer = build_optimizer(objective, settings)
    progress = checkpoint.load_latest(state, objective.module, optimizer)
    progress = progress or checkpoint.TrainingProgress(0, 0, 0, 0.0)
    if progress.step:
        logger.info(f"resuming at step {progress.step} of {total_steps}")
    trackers = open_trackers(settings, title)
    objective.module.train()
    steps = range(progress.step, total_steps)
    batches_of = load_micro_batches(objective, settings, steps, runtime.device.type == "cuda")
    with (
        _stop_signals() as stopping,
        checkpoint.CheckpointWriter(state, settings.keep) as saver,
        progress_bar(title, total_steps, progress.step, "step") as bar,
    ):
        run = _Run(objective, settings, runtime, optimizer, saver, state, progress)
        for step in steps:
            with run.clock.spent("data"):
                batches = next(batches_of)
            rate = (
                learning_rate_at(step) if learning_rate_at else settings.learning_rate_at(step, total_steps)
            )
            means, weight = run.update(step, batches, rate)
            extra = after_step(step + 1, run.weight) if after_step else {}
            row = {"step": step + 1, objective.unit: run.weight, **means, **extra}
            run.log.write(row, weight)
            timing = {f"{objective.unit}_per_second": run.speed, "data_wait_share": run.clock.share("data")}
            for tracker in trackers:
                tracker.log({**row, **timing, **_gpu_memory(runtime)}, step + 1)
            bar.note(f"loss {means['loss']:.4f}  {run.speed:,.0f} {objective.unit}/s")
            bar.advance()
            if runtime.device.type == "cpu" and (step + 1) % RETURN_MEMORY_EVERY == 0:
                return_freed_memory()
            for finished, branch in branches:
                if finished == step + 1:
                    run.branch_off(finished, branch)
            last = step + 1 == total_steps
            stop = distributed.any_process(bool(stopping))
            if (step + 1) % settings.checkpoint_every == 0 or stop or last:
                run.save(step + 1)
            if stop and not last:
                saver.wait()
                distributed.barrier()
                raise Interrupted(
                    f"interrupted at step {step + 1} of {total_steps}; the state is saved",
                    hint="run the same command again to resume",
                )
        with run.clock.spent("checkpoint"):
            saver.wait()
    distributed.barrier()
    objective.module.eval()
    for tracker in trackers:
        tracker.close()
    if rank() == 0:
        shutil.copyfile(state / METRICS, folder / METRICS)
    return run.summary(total_steps)


class _Run:
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
        self.clock = _Clock(progress.seconds)
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
            **_gpu_memory(self._runtime),
        }
        return TrainingSummary(steps, self.weight, self.log.final_loss(steps), self.clock.seconds, cost)


class _Clock:
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


def _gpu_memory(runtime: Runtime) -> dict[str, float]:
    """Peak GPU memory so far."""
    if runtime.device.type != "cuda":
        return {}
    return {"peak_gpu_memory_bytes": torch.cuda.max_memory_allocated(runtime.device)}


def _check_trainable(objective: Objective, settings: TrainingSettings) -> None:
    if len(objective) == 0:
        raise InputError("there are no samples to train on")
    if not any(parameter.requires_grad for parameter in objective.module.parameters()):
        raise UsageError("no parameters are trainable", hint="see --train")
    if settings.batch_size % world_size():
        raise UsageError(
            f"--batch-size {settings.batch_size} cannot be split among {world_size()} processes",
            hint="choose a multiple of the number of processes",
        )


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


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that the step is finished and a checkpoint written before stopping."""
    received: list[int] = []

    def handler(number: int, _frame: object) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        logger.info("finishing this step and saving; Ctrl-C again aborts")

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
