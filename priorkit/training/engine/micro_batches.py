"""Loading micro-batches: which samples each step of each process trains on, as a function of the step."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from priorkit.core.process import distributed
from priorkit.data.shuffling import sample_ids
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective


def step_positions(step: int, batch_size: int) -> range:
    """The positions in the sample stream that a step (counted from 0) trains on."""
    return range(step * batch_size, (step + 1) * batch_size)


def load_micro_batches(
    objective: Objective, settings: TrainingSettings, steps: range, pinned: bool = False
) -> Iterator[list[Any]]:
    """Yield this process's micro-batches of each step, prefetched by data-loading workers where there are any.

    Args:
        objective: gives samples and collates them.
        settings: batch sizes, seed, workers.
        steps: the steps, counted from 0.
        pinned: whether batches are moved to page-locked memory, from which a GPU copies them while it computes.
    """
    loader = DataLoader(
        _Steps(objective, settings, steps),
        batch_size=None,
        num_workers=settings.workers,
        persistent_workers=False,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=_start_worker,
        pin_memory=pinned,
    )
    return iter(loader)


class _Steps(Dataset[Any]):
    """The micro-batches of one process, a list per step, as a dataset indexed by step."""

    def __init__(self, objective: Objective, settings: TrainingSettings, steps: range) -> None:
        self._objective, self._settings, self._steps = objective, settings, steps

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, number: int) -> list[Any]:
        settings = self._settings
        positions = step_positions(self._steps[number], settings.batch_size)
        ids = sample_ids(settings.seed, positions.start, positions.stop, len(self._objective))
        local = distributed.share(settings.batch_size)
        samples = [self._objective.sample(int(ids[i]), positions[i]) for i in local]
        size = settings.micro_batch_size or len(samples)
        return [self._objective.collate(samples[i : i + size]) for i in range(0, len(samples), size)]


def _start_worker(number: int) -> None:
    """Leave signals to the main process, which finishes its step; no tokenizer threads after a fork."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
