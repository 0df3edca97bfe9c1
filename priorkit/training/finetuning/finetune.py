"""The last part of align, tune and blind-tune: train a prepared run, save the model, record its metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from priorkit.core.process.runtime import Runtime, rank
from priorkit.core.work import Work
from priorkit.models.multimodal.llava import PARTS
from priorkit.training.engine.loop import train
from priorkit.training.engine.resource_estimates import TUNING_FORMULA, tuning_throughput
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.settings import FinetuningSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartParameters:
    """The parameters of one part of a model.

    Attributes:
        trained, total: numbers of parameters.
        learning_rate: the part's peak learning rate; None where it is frozen.
    """

    trained: int
    total: int
    learning_rate: float | None


@dataclass(frozen=True)
class FinetuningRun:
    """A run with its model and data loaded.

    Attributes:
        objective: batches and losses; its module is on the device.
        parts: parameters by part; printed before the first step and recorded in the manifest.
        save: writes the trained model into the artifact's folder; called in the first process only.
        mean_length: mean tokens of a sample, for a length of training given in tokens.
        metrics: further metrics for the manifest, the same in every run.
        epoch_samples: samples of an epoch; None for the objective's number.
    """

    objective: InstructionObjective
    parts: Mapping[str, PartParameters]
    save: Callable[[Path], None]
    mean_length: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    epoch_samples: int | None = None


def train_and_save(
    run: FinetuningRun, settings: FinetuningSettings, runtime: Runtime, work: Work[Any], title: str
) -> None:
    """Train to the end, save the model and record metrics."""
    for part, row in run.parts.items():
        rate = f", learning rate {row.learning_rate:g}" if row.learning_rate else ""
        logger.info(f"  {part:<12} {row.trained:>14,} of {row.total:>14,} parameters trained{rate}")
    objective = run.objective
    if settings.compile:
        objective.compile_decoder(by_block=settings.shard)
    objective.save_memory(settings.checkpoint_activations, settings.shard, runtime)
    samples = len(objective)
    steps = settings.total_steps(run.epoch_samples or samples, run.mean_length)
    summary = train(objective, settings, runtime, work.path, work.state, steps, title)
    objective.gather()
    if rank() == 0:
        run.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        samples=samples,
        tokens=summary.weight,
        trained={part: row.trained for part, row in run.parts.items()},
        parameters={part: row.total for part, row in run.parts.items()},
        learning_rates={
            part: row.learning_rate for part, row in run.parts.items() if row.learning_rate is not None
        },
        **run.metrics,
    )
    work.cost.update(summary.cost)
    if set(run.parts) <= {*PARTS, "placeholder"}:
        counted = objective.counted
        work.cost.update(tuning_throughput(objective.config, run.parts, counted, summary, runtime))
        work.metrics["flops_formula"] = TUNING_FORMULA
    work.cost.update(
        samples_per_second=summary.steps * settings.batch_size / max(summary.seconds, 1e-9),
        useful_share=objective.useful_share,
    )


def count_parameters(
    module: nn.Module, parameter_part: Callable[[str], str], rates: Mapping[str, float], order: Sequence[str]
) -> dict[str, PartParameters]:
    """The parameters of each part; tied parameters count once, originals that PEFT keeps of what it trains do not.

    Args:
        module: the model.
        parameter_part: the part of a parameter, by its name.
        rates: peak learning rate of each part.
        order: parts that come first, in this order, also where they have no parameters.
    """
    counts = {part: [0, 0] for part in order}
    for name, parameter in module.named_parameters():
        if ".original_module." in name:
            continue
        row = counts.setdefault(parameter_part(name), [0, 0])
        row[0] += parameter.numel() * parameter.requires_grad
        row[1] += parameter.numel()
    return {
        part: PartParameters(trained, total, rates.get(part) if trained else None)
        for part, (trained, total) in counts.items()
    }
