"""Exports of a pretraining run: the model after a number of tokens, as it is or annealed on a branch of its own.

In a run with a cosine schedule an early export has had a high learning rate to its end; in a scaling curve made of such
points, shorter trainings look worse than runs of their length would be. With a decay an export's learning rate falls
to the final one over its last steps, as in schedules that are constant and then decay (Hu et al., "MiniCPM", arXiv
2404.06395; Haegele et al., arXiv 2405.18392). These steps are trained after the run, from a checkpoint of the step
where the decay begins, on the samples that the run trained on there; the run itself is not affected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import Problems, UsageError
from priorkit.training.pretraining.settings import PretrainSettings

FOLDER = "exports"
"""Folder of a run's state with a state of each annealed export."""

DONE = "done"
"""File in the state of an export that is complete."""


@dataclass(frozen=True)
class Export:
    """One export.

    Attributes:
        tokens: as asked for.
        step: the first step by which so many tokens are trained on, counted from 1.
        decay_steps: its last steps, over which the learning rate decays; 0 for none.
    """

    tokens: int
    step: int
    decay_steps: int

    @property
    def name(self) -> str:
        """The suffix of its artifact: ``at-5B``."""
        for scale, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
            if self.tokens % scale == 0:
                return f"at-{self.tokens // scale}{letter}"
        return f"at-{self.tokens}"

    @property
    def begin(self) -> int:
        """Finished steps of the run at which the decay begins."""
        return self.step - self.decay_steps

    def metrics(self, parameters: int) -> dict[str, Any]:
        """Figures for its manifest, of a model with so many parameters."""
        return {
            "tokens": self.tokens,
            "parameters": parameters,
            "annealed": bool(self.decay_steps),
            "decay_steps": self.decay_steps,
        }

    def state(self, state: Path) -> Path:
        """The folder of its state in that of the run."""
        return state / FOLDER / str(self.tokens)

    def learning_rate_at(self, settings: PretrainSettings, step: int, total: int) -> float:
        """The learning rate of a step of its branch (counted from 0) in a run of ``total`` steps."""
        if step < self.begin:
            return settings.learning_rate_at(step, total)
        peak, final = (
            settings.learning_rate_at(self.begin, total),
            settings.learning_rate * settings.final_learning_rate,
        )
        return final + (peak - final) * (1 - (step - self.begin) / self.decay_steps)


def exports_of(settings: PretrainSettings, context_length: int) -> list[Export]:
    """The exports of a run, in the order given; :func:`check_exports` found them valid."""
    step_tokens = settings.batch_size * context_length
    shares = settings.export_decay or (0.0,)
    shares = shares * len(settings.export_at) if len(shares) == 1 else shares
    found: list[Export] = []
    for tokens, share in zip(settings.export_at, shares, strict=True):
        step = -(-tokens // step_tokens)
        found.append(Export(tokens, step, max(1, round(share * step)) if share else 0))
    return found


def check_exports(settings: PretrainSettings, context_length: int, steps: int) -> None:
    """Check token counts and decays against the run.

    Raises:
        UsageError: an export is before the first step or after the last, or its decay does not fit; all are named.
    """
    problems = Problems(UsageError)
    step_tokens = settings.batch_size * context_length
    for tokens in settings.export_at:
        if tokens < step_tokens:
            problems.add(f"{tokens} tokens are less than one step's {step_tokens}", where="--export-at")
        elif tokens > steps * step_tokens:
            problems.add(
                f"{tokens} tokens are more than the run's {steps * step_tokens}", where="--export-at"
            )
    _check_shares(settings, problems)
    problems.raise_if_any()
    for export in exports_of(settings, context_length):
        if export.decay_steps and export.begin < max(1, settings.warmup_steps):
            problems.add(
                f"the decay to {export.tokens} tokens begins after {export.begin} steps; it must begin after the first "
                f"step and the warm-up of {settings.warmup_steps}",
                where="--export-decay",
                hint="decay over fewer steps, warm up over fewer, or export without a decay (0)",
            )
    problems.raise_if_any()


def _check_shares(settings: PretrainSettings, problems: Problems) -> None:
    given, wanted = len(settings.export_decay), len(settings.export_at)
    if given and not wanted:
        problems.add("no effect without --export-at", where="--export-decay", hint="leave it out")
    elif given not in (0, 1, wanted):
        problems.add(
            f"{given} shares for {wanted} exports",
            where="--export-decay",
            hint="give one for all, or one per --export-at, in order",
        )
    for share in settings.export_decay:
        if not 0 <= share < 1:
            problems.add(f"a share must be at least 0 and below 1, got {share:g}", where="--export-decay")


def describe_exports(exports: Sequence[Export]) -> list[tuple[str, str]]:
    """What ``--check`` prints of the exports."""
    if not exports:
        return []
    annealed = [export for export in exports if export.decay_steps]
    text = f"{len(exports)}, {len(annealed)} of them annealed"
    if annealed:
        text += f" in {sum(export.decay_steps for export in annealed):,} further steps"
    return [("exports", text)]
