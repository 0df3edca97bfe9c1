"""The guard: stops a run whose loss or gradients are not finite, or whose loss spikes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from priorkit.core.errors import GuardError
from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime
from priorkit.data.shuffling import sample_ids
from priorkit.training.engine.micro_batches import step_positions
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.base import Objective, to_device

SUSTAINED_STEPS = 5
"""Steps whose median is checked in addition to the single step: divergence lasts, a hard batch does not."""


def describe_spike(loss: float, recent: Sequence[float], limit: float) -> str:
    """A message about a loss spike; empty where there is none.

    A single loss is compared with the largest of the recent ones, as batches may differ a lot: four rows of
    mixed text had a median loss of 1.1, at most 3.3 in fifty steps, then one of 5.9 in a healthy run. The
    median of the last steps is compared with the recent median.

    Args:
        loss: this step's.
        recent: losses of the steps before it; empty where there were too few for a comparison.
        limit: the factor that makes a spike; 0 to disable the check.
    """
    if not limit or not recent:
        return ""
    largest, median = max(recent), statistics.median(recent)
    if loss > limit * largest:
        return f"the loss {loss:.4g} is over {limit:g} times the largest of the recent steps, {largest:.4g}"
    sustained = statistics.median([*recent[1 - SUSTAINED_STEPS :], loss])
    if sustained > limit * median:
        return (
            f"the loss of the last {SUSTAINED_STEPS} steps, {sustained:.4g}, is over {limit:g} times the recent median "
            f"of {median:.4g}"
        )
    return ""


def guard_error(
    what: str, objective: Objective, settings: TrainingSettings, step: int, finite: bool
) -> GuardError:
    """The error that stops a run; it names the step's samples.

    Args:
        what: the reason.
        objective: of the run.
        settings: of the run.
        step: the number of finished steps.
        finite: whether loss and gradients are finite, so that the run could continue.
    """
    resume = "; the state before this step is kept" if step else ""
    if resume and finite:
        resume += ", to resume from it run again with --spike-limit 0"
    positions = step_positions(step, settings.batch_size)
    ids = sample_ids(settings.seed, positions.start, positions.stop, len(objective))
    shown = ", ".join(str(int(index)) for index in ids[:8]) + (", ..." if len(ids) > 8 else "")
    return GuardError(
        f"step {step + 1}: {what}; samples {shown}",
        hint="inspect the samples; or lower --learning-rate or raise --warmup-steps and restart with --force"
        + resume,
    )


def first_non_finite_tensor(objective: Objective, batches: Sequence[Any], runtime: Runtime) -> str:
    """The first tensor that is not finite, in the order of computation: a weight, an output, a gradient.

    The forward pass is repeated with a hook on every module; the weights are still those of the step.
    """
    for name, parameter in objective.module.named_parameters():
        if not _is_finite(parameter):
            return f"the weight {name}"
    places: list[str] = []

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple | list) else [output]
            if not places and any(isinstance(value, Tensor) and not _is_finite(value) for value in tensors):
                places.append(f"the output of {name or 'the module'} ({type(module).__name__})")

        return hook

    hooks = [
        module.register_forward_hook(hook_for(name)) for name, module in objective.module.named_modules()
    ]
    try:
        with torch.no_grad(), runtime.autocast():
            for batch in batches:
                objective.loss(to_device(batch, runtime.device))
    finally:
        for hook in hooks:
            hook.remove()
        distributed.reshard(objective.module)
    # The backward pass starts at the last parameter.
    for name, parameter in reversed(list(objective.module.named_parameters())):
        if not places and parameter.grad is not None and not _is_finite(parameter.grad):
            places.append(f"the gradient of {name}")
    return places[0] if places else "the loss"


def _is_finite(value: Tensor) -> bool:
    return bool(torch.isfinite(distributed.local(value.detach())).all())
