"""The training loop: data, steps, logging, checkpoints, stopping. Objectives know batches and losses.

Sample *k* of the stream is a pure function of (seed, *k*), so the resume state is one integer, and the
order depends neither on the number of processes nor on the number of workers.
"""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from priorkit.core.errors import InputError, Interrupted, UsageError
from priorkit.core.process import distributed
from priorkit.core.process.progress import progress_bar
from priorkit.core.process.runtime import Runtime, rank, return_freed_memory, world_size
from priorkit.training.engine import checkpoint
from priorkit.training.engine.metrics_log import METRICS
from priorkit.training.engine.micro_batches import load_micro_batches
from priorkit.training.engine.optimizer import build_optimizer
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.engine.trackers import open_trackers
from priorkit.training.engine.training_run import TrainingRun, TrainingSummary, gpu_memory
from priorkit.training.objectives.base import Objective

logger = logging.getLogger(__name__)

RETURN_MEMORY_EVERY = 50
"""Steps on CPUs between returns of freed memory to the system."""

AfterStep = Callable[[int, int], Mapping[str, float]]
"""Called after every step with the number of finished steps and of tokens or samples trained on so far;
the metrics it returns are logged with the step. It must depend only on these numbers and the weights."""


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
        run = TrainingRun(objective, settings, runtime, optimizer, saver, state, progress)
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
                tracker.log({**row, **timing, **gpu_memory(runtime)}, step + 1)
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
