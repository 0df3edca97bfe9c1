"""The contract of objectives: an objective knows a batch and its loss, the training loop everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Loss:
    """The loss of a micro-batch.

    Attributes:
        total: scalar, the *sum* of the loss over its tokens or samples; divided by the weight of the
            full step, so that accumulation and any number of processes give the same gradient.
        metrics: further sums, divided by the same weight and logged.
    """

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


class Objective(Protocol):
    """What the training loop trains.

    ``module`` holds all parameters; those with ``requires_grad`` are trained and saved in checkpoints.
    """

    module: nn.Module
    unit: str
    """What the weight counts: ``tokens``, ``samples``."""

    def __len__(self) -> int:
        """The number of samples."""
        ...

    def sample(self, index: int, position: int) -> Any:
        """Prepare one sample.

        Args:
            index: which sample, 0 to ``len(self) - 1``.
            position: its position in the endless stream; it seeds augmentation, so that a resumed run repeats it.
        """
        ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """Collate samples into a micro-batch (tensors in main memory)."""
        ...

    def weight(self, batch: Any) -> int:
        """How many tokens or samples the micro-batch's loss sums over."""
        ...

    def loss(self, batch: Any) -> Loss:
        """Forward pass and loss of a micro-batch on the device."""
        ...

    def learning_rate_scale(self, name: str) -> float:
        """The multiplier of the learning rate for a parameter."""
        ...


def to_device(batch: Any, device: torch.device) -> Any:
    """Move the tensors of a batch (nested in dicts, lists, tuples) to the device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
