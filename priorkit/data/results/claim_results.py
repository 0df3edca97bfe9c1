"""What was decided about claims: verdicts with their effects, and ``claims.json``, where a report stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from priorkit.core.interval import Interval, finite

CLAIMS = "claims.json"

SCHEMA = 1

Verdict = Literal["supported", "contradicted", "undecided", "not run"]


@dataclass(frozen=True, slots=True)
class MeasuredEffect:
    """One effect with its interval over seeds and items.

    Attributes:
        name: what it measures.
        kind: how it is computed, a key of :mod:`priorkit.analysis.claims.registry`.
        effect: the effect with its interval; positive is what the claim predicts.
        smallest: the smallest effect of interest; None for a control without one.
        verdict: of this effect; None for a control.
        reason: the verdict in words.
        per_seed: each seed's effect; empty where one seed has none of its own.
        parts: what the effect is made of, with intervals.
        share_of_seeds: the share of the effect's variance that comes from seeds, which more items would not reduce; NaN where
            it is not known.
        items: number of items.
        units: number of units that are resampled.
        unit: what a unit is: ``image`` or a column such as ``entity``.
        notes: what was left out, and the like.
    """

    name: str
    kind: str
    effect: Interval
    smallest: float | None
    verdict: Verdict | None
    reason: str
    per_seed: Mapping[str, float]
    parts: Mapping[str, Interval]
    share_of_seeds: float
    items: int
    units: int
    unit: str
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``claims.json`` holds it."""
        return {
            "name": self.name,
            "kind": self.kind,
            **self.effect.to_dict(),
            "smallest": self.smallest,
            "verdict": self.verdict,
            "reason": self.reason,
            "per_seed": {seed: finite(value) for seed, value in self.per_seed.items()},
            "parts": {name: part.to_dict() for name, part in self.parts.items()},
            "share_of_seeds": finite(self.share_of_seeds),
            "items": self.items,
            "units": self.units,
            "unit": self.unit,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class GateResult:
    """Whether what a claim builds on works at all.

    Attributes:
        evaluation: the variant that must reach the value.
        benchmark: on this benchmark.
        metric: in this metric.
        least: the value.
        value: what it reached, the mean over its seeds.
    """

    evaluation: str
    benchmark: str
    metric: str
    least: float
    value: float

    @property
    def met(self) -> bool:
        """Whether it reached the value."""
        return self.value >= self.least

    def to_json(self) -> dict[str, Any]:
        """As ``claims.json`` holds it."""
        return {
            "evaluation": self.evaluation,
            "benchmark": self.benchmark,
            "metric": self.metric,
            "least": self.least,
            "value": finite(self.value),
            "met": self.met,
        }


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim with its verdict.

    Attributes:
        id: its key in the file of claims.
        paper: where it is from.
        statement: the claim in one sentence.
        comparison: what is compared, and what is held fixed.
        verdict: from the verdicts of the measures.
        reason: the verdict in words.
        seeds: the seeds that were used.
        gate: the condition that came first; None where there is none, or nothing to check it with.
        measures: the effects that decide.
        controls: effects that are reported with them.
        artifacts: label -> digest of the artifacts it was decided from.
        seconds: time of all steps that made them, together with what they were made from; None where not known.
    """

    id: str
    paper: str
    statement: str
    comparison: str
    verdict: Verdict
    reason: str
    seeds: Sequence[str] = ()
    gate: GateResult | None = None
    measures: Sequence[MeasuredEffect] = ()
    controls: Sequence[MeasuredEffect] = ()
    artifacts: Mapping[str, str] = field(default_factory=dict[str, str])
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``claims.json`` holds it: without times, which differ from run to run."""
        return {
            "paper": self.paper,
            "statement": self.statement,
            "comparison": self.comparison,
            "verdict": self.verdict,
            "reason": self.reason,
            "seeds": list(self.seeds),
            "gate": None if self.gate is None else self.gate.to_json(),
            "measures": [measure.to_json() for measure in self.measures],
            "controls": [control.to_json() for control in self.controls],
            "artifacts": dict(self.artifacts),
        }


def write_claims(results: Sequence[ClaimResult], rule: str, folder: Path) -> None:
    """Write ``claims.json``; docs/claims.md describes it.

    Args:
        results: the claims, in the order of their file.
        rule: the rule that decided them.
        folder: where to write.
    """
    document = {"schema": SCHEMA, "rule": rule, "claims": {claim.id: claim.to_json() for claim in results}}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / CLAIMS).write_text(text + "\n", encoding="utf-8")
