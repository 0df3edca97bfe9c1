"""A pipeline step: its settings, its plan and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from priorkit.core.artifact import Artifact
from priorkit.core.lifecycle import produce
from priorkit.core.options.settings import StepSettings
from priorkit.core.work import Inputs, Plan, Work

S = TypeVar("S", bound=StepSettings)
P = TypeVar("P")


@dataclass(frozen=True)
class Step(Generic[S, P]):
    """One step; its module holds it as ``STEP``.

    Attributes:
        settings: the model of its options.
        plan: validates the inputs from headers and estimates the work; raises all problems it finds.
        execute: does the work, writing into ``work.path``.
    """

    settings: type[S]
    plan: Callable[[S, Inputs], Plan[P]]
    execute: Callable[[S, Work[P]], None]

    @property
    def name(self) -> str:
        """The command's name, such as ``blind-tune``."""
        return self.settings.step

    def run(
        self, settings: S, show_plan: Callable[[Mapping[str, str]], None] | None = None
    ) -> Artifact | None:
        """Make the artifact, or find it complete; None after ``check``, which shows the plan.

        Raises:
            PriorkitError: see its subclasses for the exit codes.
        """
        return produce(settings, self.plan, self.execute, show_plan)
