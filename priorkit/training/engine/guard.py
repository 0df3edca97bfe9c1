"""Guards: what stops a run whose loss or gradients are not finite, or whose loss leaps."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core import distributed
from priorkit.core.errors import GuardError
from priorkit.core.runtime import Runtime
from priorkit.data.shuffling import sample_ids
from priorkit.training.engine.micro_batches import step_positions
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective, to_device

SUSTAINED_STEPS = 5
"""Steps whose median is judged beside the single step: divergence lasts, a hard batch does not."""


def describe_spike(loss: float, recent: Sequence[float], limit: float) -> str:
    """What is wrong with a loss that leaps; empty where nothing is.

    A single loss is held against the largest of the recent ones, as batches may differ much among themselves:
    four rows of mixed text had losses of 1.1 in the median, 3.3 at most in fifty steps, then one of 5.9 in a
    run that was well. What lasts is held against their median.

    Args:
        loss: this step's.
        recent: those of the steps before it; empty where there were too few to judge by.
        limit: the factor that makes a leap; 0 for none.
    """
    if not limit or not recent:
        return ""
    largest, usual = max(recent), statistics.median(recent)
    if loss > limit * largest:
        return f"the loss {loss:.4g} is over {limit:g} times the largest of the recent steps, {largest:.4g}"
    lasting = statistics.median([*recent[1 - SUSTAINED_STEPS :], loss])
    if lasting > limit * usual:
        return (
            f"the loss of the last {SUSTAINED_STEPS} steps, {lasting:.4g}, is over {limit:g} times the recent steps' "
            f"{usual:.4g}"
        )
    return ""


def guard_error(
    what: str, objective: Objective, settings: TrainingSettings, step: int, finite: bool
) -> GuardError:
    """The error that stops a run, with the step's samples by name.

    Args:
        what: what is wrong.
        objective: what is learnt.
        settings: the run's.
        step: the number of finished steps.
        finite: whether the run could go on, its loss and gradients being numbers.
    """
    kept = "; the state before this step is kept" if step else ""
    if kept and finite:
        kept += ", to go on from it run again with --spike-limit 0"
    positions = step_positions(step, settings.batch_size)
    ids = sample_ids(settings.seed, positions.start, positions.stop, len(objective))
    shown = ", ".join(str(int(index)) for index in ids[:8]) + (", ..." if len(ids) > 8 else "")
    return GuardError(
        f"step {step + 1}: {what}; samples {shown}",
        hint="look at the samples; or lower --learning-rate or lengthen --warmup-steps and begin anew with --force"
        + kept,
    )


def first_non_finite_tensor(objective: Objective, batches: Sequence[Any], runtime: Runtime) -> str:
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
        distributed.reshard(objective.module)
    # The backward pass begins at the end.
    for name, parameter in reversed(list(objective.module.named_parameters())):
        if not found and parameter.grad is not None and not _is_finite(parameter.grad):
            found.append(f"the gradient of {name}")
    return found[0] if found else "the loss"


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(distributed.local(value.detach())).all())
