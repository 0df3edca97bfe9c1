"""Guards: what stops a run whose loss or gradients are not finite, or whose loss leaps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import GuardError
from priorkit.core.runtime import Runtime
from priorkit.data.order import sample_ids
from priorkit.training import parallel
from priorkit.training.objective import Objective, to_device
from priorkit.training.settings import TrainingSettings
from priorkit.training.stream import positions_of

BEYOND_THE_LARGEST = 1.5
"""How far a leap exceeds the largest of the recent losses. Batches of four rows of mixed text differ by more than
a factor of three among themselves: about 1.1 in the median, 4.1 at most, in the glyph world's seven sources."""


def leap(loss: float, recent: Sequence[float], limit: float) -> str:
    """What is wrong with a loss that leaps; empty where nothing is.

    Args:
        loss: this step's.
        recent: those of the steps before it; empty where there were too few to judge by.
        limit: the factor over their median that makes a leap, if the loss is also well over their largest;
            0 for none.
    """
    if not limit or not recent:
        return ""
    usual, largest = statistics.median(recent), max(recent)
    if loss <= limit * usual or loss <= BEYOND_THE_LARGEST * largest:
        return ""
    return (
        f"the loss {loss:.4g} is over {limit:g} times the recent steps' {usual:.4g} "
        f"(their largest: {largest:.4g})"
    )


def stopped(what: str, objective: Objective, settings: TrainingSettings, step: int) -> GuardError:
    """The error that stops a run, with the step's samples by name."""
    positions = positions_of(step, settings.batch_size)
    ids = sample_ids(settings.seed, positions.start, positions.stop, len(objective))
    shown = ", ".join(str(int(index)) for index in ids[:8]) + (", ..." if len(ids) > 8 else "")
    return GuardError(
        f"step {step + 1}: {what}; samples {shown}",
        hint="look at the samples; or lower --learning-rate or lengthen --warmup-steps and begin anew with --force"
        + ("; the state before this step is kept" if step else ""),
    )


def first_non_finite(objective: Objective, batches: Sequence[Any], runtime: Runtime) -> str:
    """The first tensor that is not finite, in the order of computing: a weight, an output, a gradient.

    The forward pass is taken again with every module watched; the weights are still those of the step.
    """
    for name, parameter in objective.module.named_parameters():
        if not _is_finite(parameter):
            return f"the weight {name}"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            if not found and any(isinstance(value, Tensor) and not _is_finite(value) for value in tensors):
                found.append(f"the output of {name or 'the module'} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in objective.module.named_modules()]
    try:
        with torch.no_grad(), runtime.autocast():
            for batch in batches:
                objective.loss(to_device(batch, runtime.device))
    finally:
        for hook in hooks:
            hook.remove()
        parallel.reshard(objective.module)
    # The backward pass begins at the end.
    for name, parameter in reversed(list(objective.module.named_parameters())):
        if not found and parameter.grad is not None and not _is_finite(parameter.grad):
            found.append(f"the gradient of {name}")
    return found[0] if found else "the loss"


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(parallel.local(value.detach())).all())
