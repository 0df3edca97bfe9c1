"""The ending that align, tune and blind-tune share: train what was prepared, save it, write down what happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from priorkit.core import distributed
from priorkit.core.runtime import Runtime, rank
from priorkit.core.work import Work
from priorkit.models.multimodal.llava import PARTS
from priorkit.training.engine.loop import train
from priorkit.training.engine.resource_estimates import TUNING_FORMULA, tuning_throughput
from priorkit.training.engine.settings import MemorySettings, TrainingSettings
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.objectives.base import Objective

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartRow:
    """A line of the table of parameters.

    Attributes:
        trained, total: numbers of parameters.
        learning_rate: the part's peak learning rate; None where nothing of it is trained.
    """

    trained: int
    total: int
    learning_rate: float | None


@dataclass(frozen=True)
class Prepared:
    """What an architecture hands over when everything is loaded, checked and set.

    Attributes:
        objective: batches and losses; its module lies on the device.
        parts: the table of parameters by part; printed before the first step and kept in the manifest.
        save: writes the trained model into the artifact's folder; called in the first process alone.
        mean_length: mean positions of a sample, for a length of training given in tokens.
        metrics: further figures for the manifest that are the same in every run.
        finish: gives further figures that may differ from run to run, after training.
        samples: what a length given in epochs is reckoned by; the objective's own number where None.
    """

    objective: Objective
    parts: Mapping[str, PartRow]
    save: Callable[[Path], None]
    mean_length: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    finish: Callable[[], Mapping[str, float]] = dict[str, float]
    samples: int | None = None


def learn(prepared: Prepared, settings: TrainingSettings, runtime: Runtime, work: Work, title: str) -> None:
    """Train a prepared objective to the end and save the result with its figures."""
    for part, row in prepared.parts.items():
        rate = f", learning rate {row.learning_rate:g}" if row.learning_rate else ""
        logger.info(f"  {part:<12} {row.trained:>14,} of {row.total:>14,} parameters trained{rate}")
    if isinstance(settings, MemorySettings) and isinstance(prepared.objective, InstructionObjective):
        prepared.objective.save_memory(settings.checkpoint_activations, settings.shard, runtime)
    samples = len(prepared.objective)
    steps = settings.total_steps(prepared.samples or samples, prepared.mean_length)
    summary = train(prepared.objective, settings, runtime, work.path, work.state, steps, title)
    distributed.gather(prepared.objective.module)
    if rank() == 0:
        prepared.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        samples=samples,
        tokens=summary.weight,
        trained={part: row.trained for part, row in prepared.parts.items()},
        parameters={part: row.total for part, row in prepared.parts.items()},
        learning_rates={
            part: row.learning_rate for part, row in prepared.parts.items() if row.learning_rate is not None
        },
        **prepared.metrics,
    )
    work.cost.update(summary.cost)
    own = prepared.objective
    if isinstance(own, InstructionObjective) and set(prepared.parts) <= {*PARTS, "placeholder"}:
        work.cost.update(tuning_throughput(own.config, prepared.parts, own.counted, summary, runtime))
        work.metrics["flops_formula"] = TUNING_FORMULA
    work.cost.update(
        samples_per_second=summary.steps * settings.batch_size / max(summary.seconds, 1e-9),
        **prepared.finish(),
    )


def part_table(
    module: nn.Module, parameter_part: Callable[[str], str], rates: Mapping[str, float], order: Sequence[str]
) -> dict[str, PartRow]:
    """The table of parameters by part; tied parameters count once."""
    counts = {part: [0, 0] for part in order}
    for name, parameter in module.named_parameters():
        row = counts.setdefault(parameter_part(name), [0, 0])
        row[0] += parameter.numel() * parameter.requires_grad
        row[1] += parameter.numel()
    return {
        part: PartRow(trained, total, rates.get(part) if trained else None)
        for part, (trained, total) in counts.items()
    }
