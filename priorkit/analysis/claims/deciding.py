"""Decides claims from artifacts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from priorkit.analysis.claims.arms import Arms, Runs, arms_of, not_begun, runs_by_label
from priorkit.analysis.claims.base import Measure, UnitScores
from priorkit.analysis.claims.estimation import measure_effect
from priorkit.analysis.claims.reading import Claim, read_claims
from priorkit.analysis.claims.rule import RULE, decide_together
from priorkit.analysis.claims.scores import ScoreReader
from priorkit.core.errors import InputError, Problems, nearest
from priorkit.data.number_table import read_number_table
from priorkit.data.results.artifact_graph import Member, entities_file, made_from
from priorkit.data.results.claim_results import ClaimResult, GateResult, write_claims


@dataclass(frozen=True)
class PreparedClaim:
    """A claim with all that decides it, checked.

    Attributes:
        claim: the claim.
        gate: the condition that comes first, where there is something to check it with.
        not_run: why it was not run; empty where it was.
        arms: its artifacts; None where it was not run.
        scores: the scores of each of its effects.
    """

    claim: Claim
    gate: GateResult | None = None
    not_run: str = ""
    arms: Arms | None = None
    scores: Sequence[tuple[Measure, UnitScores]] = ()


def prepare(
    file: Path, members: Sequence[Member], entities: Path | None, ignored: Collection[str] = ()
) -> list[PreparedClaim]:
    """Read claims, find their artifacts and read their scores.

    Args:
        file: the file of claims.
        members: all artifacts; those that were given are found by their labels.
        entities: the table of entities; that of a world among the artifacts where None.
        ignored: settings in which seeds may differ, as they change no result.

    Raises:
        UsageError: the file of claims is wrong.
        InputError: what was given does not fit a claim that was begun; all problems of all claims at once.
    """
    claims = read_claims(file)
    table = entities or entities_file(members)
    problems = Problems(InputError)
    runs = runs_by_label(members)
    reader = ScoreReader(read_number_table(table) if table else None)
    prepared: list[PreparedClaim] = []
    for claim in claims:
        with problems.collecting():
            prepared.append(_prepare(claim, claims, runs, members, reader, ignored))
    problems.raise_if_any()
    return prepared


def _prepare(
    claim: Claim,
    claims: Sequence[Claim],
    runs: Mapping[str, Runs],
    members: Sequence[Member],
    reader: ScoreReader,
    ignored: Collection[str],
) -> PreparedClaim:
    gate = _gate(claim, runs)
    if gate is not None and not gate.met:
        return PreparedClaim(
            claim, gate, f"gate: {gate.evaluation} reaches {gate.value:.3f} of the {gate.least:g} needed"
        )
    not_run = not_begun(claim, claims, runs)
    if not_run:
        return PreparedClaim(claim, gate, not_run)
    arms = arms_of(claim, runs, members, ignored)
    problems = Problems(InputError)
    scores: list[tuple[Measure, UnitScores]] = []
    for effect in claim.effects:
        with problems.collecting(f"claim {claim.id}, {effect.name}"):
            scores.append((effect, reader.read(effect, arms)))
    problems.raise_if_any()
    return PreparedClaim(claim, gate, "", arms, scores)


def _gate(claim: Claim, runs: Mapping[str, Runs]) -> GateResult | None:
    """The gate's value, the mean over seeds; None without a gate or without its evaluation.

    Raises:
        InputError: the evaluation lacks the benchmark or the metric.
    """
    gate = claim.stated.gate
    if gate is None or gate.evaluation not in runs:
        return None
    where = f"claim {claim.id}, gate"
    values: list[float] = []
    for member in runs[gate.evaluation].values():
        if member.artifact.kind != "evaluation":
            raise InputError(
                f"'{member.label}' should be an evaluation, got {member.artifact.kind}", where=where
            )
        benchmarks = member.evaluation.benchmarks
        if gate.benchmark not in benchmarks:
            raise InputError(
                f"'{member.label}' was not evaluated on '{gate.benchmark}'", where=where,
                hint=nearest(gate.benchmark, benchmarks),
            )  # fmt: skip
        metrics = benchmarks[gate.benchmark].metrics
        if gate.metric not in metrics:
            raise InputError(
                f"'{member.label}' has no metric '{gate.metric}' of '{gate.benchmark}'", where=where,
                hint=nearest(gate.metric, metrics),
            )  # fmt: skip
        values.append(metrics[gate.metric].value)
    return GateResult(
        gate.evaluation, gate.benchmark, gate.metric, gate.least, math.fsum(values) / len(values)
    )


def decide_claims(
    prepared: Sequence[PreparedClaim], members: Sequence[Member], *, seed: int, resamples: int
) -> list[ClaimResult]:
    """Apply the rule to each claim.

    Args:
        prepared: from :func:`prepare`.
        members: all artifacts, for the cost of what a claim was decided from.
        seed: of the resampling.
        resamples: number of bootstrap samples.
    """
    return [_decide(item, members, seed, resamples) for item in prepared]


def store(results: Sequence[ClaimResult], folder: Path) -> None:
    """Write ``claims.json`` with the rule that decided."""
    write_claims(results, RULE, folder)


def _decide(item: PreparedClaim, members: Sequence[Member], seed: int, resamples: int) -> ClaimResult:
    stated = item.claim.stated
    about = (item.claim.id, stated.paper, stated.statement, stated.comparison)
    if item.arms is None:
        return ClaimResult(*about, verdict="not run", reason=item.not_run, gate=item.gate)
    effects = [
        measure_effect(
            measure, scores, seed=seed, resamples=resamples, decides=number < len(item.claim.measures)
        )
        for number, (measure, scores) in enumerate(item.scores)
    ]
    measures = effects[: len(item.claim.measures)]
    verdict, reason = decide_together(measures)
    return ClaimResult(
        *about,
        verdict=verdict,
        reason=reason,
        seeds=item.arms.seeds,
        gate=item.gate,
        measures=measures,
        controls=effects[len(measures) :],
        artifacts={member.label: member.digest for member in item.arms.all},
        seconds=_seconds(item.arms.all, members),
    )


def _seconds(used: Sequence[Member], members: Sequence[Member]) -> float | None:
    """Time of all steps that made these artifacts and what they were made from; None where none has a time."""
    costs = [member.artifact.manifest.cost.get("seconds") for member in made_from(used, members)]
    known = [cost for cost in costs if cost is not None]
    return math.fsum(known) if known else None
