"""What a step gets and returns: its resolved inputs, its plan, and the folder it writes into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from priorkit.core.inputs import Input
from priorkit.core.partial import STATE

SCRATCH = "scratch"
"""Folder of a partial artifact for temporary files."""

P = TypeVar("P")

_NOTHING: Any = None


class Inputs(Mapping[str, Input]):
    """A step's resolved inputs, by the name of the option that gives them.

    As a mapping it is keyed by labels: ``corpus`` for a single input, ``teacher.0`` for a repeated one,
    ``sources.facts`` for ``NAME=PATH``. The labels are recorded in the manifest; code uses the methods.
    """

    def __init__(self, by_label: Mapping[str, Input]) -> None:
        self._by_label = dict(by_label)

    def __getitem__(self, label: str) -> Input:
        return self._by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def one(self, name: str) -> Input:
        """The input of a required option."""
        return self._by_label[name]

    def optional(self, name: str) -> Input | None:
        """The input of an option that may be left out."""
        return self._by_label.get(name)

    def many(self, name: str) -> list[Input]:
        """The inputs of a repeated option, in the order given; empty where there are none."""
        return list(self.named(name).values())

    def named(self, name: str) -> dict[str, Input]:
        """The inputs of a ``NAME=PATH`` option by their names, in the order given."""
        lead = name + "."
        return {
            label.removeprefix(lead): item
            for label, item in self._by_label.items()
            if label.startswith(lead) and not item.files
        }


@dataclass(frozen=True)
class Plan(Generic[P]):
    """What a step is about to do, known only from headers.

    Attributes:
        facts: rows to print, ``(what, value)``.
        disk_bytes: expected size of the artifact with its training state.
        memory_bytes: expected peak of main memory (or of the GPU's, with ``on_gpu``).
        payload: what ``plan`` worked out and ``execute`` needs again; None where there is nothing.
        kind: the kind of artifact, where it depends on the settings; the step's own where empty.
    """

    facts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    disk_bytes: int = 0
    memory_bytes: int = 0
    payload: P = _NOTHING
    kind: str = ""


@dataclass(frozen=True)
class Work(Generic[P]):
    """Where a running step writes, and what it reads.

    Attributes:
        path: the partial artifact's folder.
        inputs: the resolved inputs.
        plan: what ``plan`` returned.
        metrics: figures for the manifest; the step fills it.
        cost: seconds, tokens per second and the like; kept apart, as they differ from run to run.
    """

    path: Path
    inputs: Inputs
    plan: Plan[P]
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    cost: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def state(self) -> Path:
        """Folder for the state of an interrupted run; it does not become part of the artifact."""
        return self.path / STATE

    @property
    def scratch(self) -> Path:
        """A folder for temporary files; it does not become part of the artifact."""
        folder = self.path / SCRATCH
        folder.mkdir(exist_ok=True)
        return folder
