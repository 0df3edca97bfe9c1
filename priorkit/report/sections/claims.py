"""Claims: what was stated before it was run, and what was found."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import get_args

from priorkit.data.results.artifact_graph import Members
from priorkit.data.results.claim_results import ClaimResult, MeasuredEffect, Verdict
from priorkit.report import numbers
from priorkit.report.blocks import (
    Block,
    Cell,
    ClaimCard,
    ClaimEffect,
    ClaimList,
    FormattedNumber,
    Plot,
    Section,
    SignedInterval,
    Table,
)
from priorkit.report.plots.claims import effect_figure, overview

_SIGNS = {
    "supported": "\N{CHECK MARK}",
    "contradicted": "\N{BALLOT X}",
    "undecided": "?",
    "not run": "\N{EN DASH}",
}


def claims_section(members: Members) -> Section | None:
    """A card per claim with its verdict, effect and interval; all effects in one picture; a table of everything."""
    if not members.claims:
        return None
    run = [claim for claim in members.claims if claim.verdict != "not run"]
    rows = [
        (claim.id if len(claim.measures) == 1 else f"{claim.id}, measure {number}", measure)
        for claim in run
        for number, measure in enumerate(claim.measures, start=1)
        if math.isfinite(measure.effect.value)
    ]
    counts = {
        verdict: count
        for verdict in get_args(Verdict)
        if (count := sum(claim.verdict == verdict for claim in members.claims))
    }
    blocks: list[Block] = [ClaimList(counts, [_card(claim) for claim in members.claims])]
    if len(rows) > 1:
        title = "All effects that decide, each divided by its smallest effect of interest"
        blocks.append(Plot("claims", title, overview(rows)))
    if run:
        blocks.append(_all_effects(run))
    intro = (
        "Each claim was stated with its comparison, measure, seeds and smallest effect of interest before it was run. "
        "Supported: the 95 % interval over seeds and items lies above 0, and the effect is at least the smallest of "
        "interest. Contradicted: the interval lies below the smallest effect of interest. Undecided: neither. Small ticks are "
        "seeds; the shaded side is where an effect is large enough to matter."
    )
    return Section("claims", "Claims", intro, blocks, [_summary(members.claims)])


def _card(claim: ClaimResult) -> ClaimCard:
    gate = claim.gate
    stopped = gate is not None and not gate.met
    return ClaimCard(
        id=claim.id,
        paper=claim.paper,
        statement=claim.statement,
        comparison=claim.comparison,
        verdict=claim.verdict,
        badge=f"{_SIGNS[claim.verdict]} {claim.verdict}{': gate' if stopped else ''}",
        reason=_sentence(claim.reason),
        effects=[_effect(claim, index, measure) for index, measure in enumerate(claim.measures)],
        facts=_facts(claim),
        details=_details(claim),
    )


def _effect(claim: ClaimResult, index: int, measure: MeasuredEffect) -> ClaimEffect:
    name = f"claim-{_file_name(claim.id)}" + (f"-{index + 1}" if index else "")
    text = numbers.with_interval(measure.effect, signed=True)
    return ClaimEffect(
        measure.name,
        text.replace(", ", ",\N{NO-BREAK SPACE}"),
        numbers.plain(measure.smallest or math.nan),
        Plot(name, f"{claim.id}, {measure.name}: {text}", effect_figure(measure)),
    )


def _facts(claim: ClaimResult) -> list[str]:
    facts: list[str] = []
    if claim.gate is not None:
        gate = claim.gate
        facts.append(
            f"gate {'met' if gate.met else 'not met'}: {gate.evaluation} {gate.value:.3f} on {gate.benchmark} ({gate.metric}), "
            f"{gate.least:g} needed"
        )
    if claim.measures:
        facts.append(f"{len(claim.seeds)} seeds")
        facts.append(_spread([f"{measure.items:,} items" for measure in claim.measures]))
        units = _spread([f"{measure.units:,}" for measure in claim.measures])
        facts.append(f"resampled by {_spread([measure.unit for measure in claim.measures])} ({units})")
    if claim.seconds is not None:
        facts.append(f"{numbers.seconds(claim.seconds)} of computing")
    return facts


def _spread(texts: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(texts))


def _details(claim: ClaimResult) -> list[Table]:
    """The means behind each effect, the controls, and what each seed gives."""
    tables: list[Table] = []
    name = _file_name(claim.id)
    if claim.controls:
        rows: list[list[Cell]] = [
            [control.name, SignedInterval(control.effect)] for control in claim.controls
        ]
        tables.append(Table(f"claim-{name}-controls", "Controls", ["control", "effect"], rows))
    for index, measure in enumerate([*claim.measures, *claim.controls]):
        parts: list[list[Cell]] = [[part, interval] for part, interval in measure.parts.items()]
        parts += [[f"effect of seed {seed}", value] for seed, value in measure.per_seed.items()]
        notes = "; ".join(measure.notes)
        title = f"What '{measure.name}' is made of"
        tables.append(
            Table(f"claim-{name}-parts-{index + 1}", title, ["part", "value"], parts, note=_sentence(notes))
        )
    return tables


def _all_effects(claims: Sequence[ClaimResult]) -> Table:
    rows: list[list[Cell]] = [
        [
            claim.id,
            claim.verdict if measure.verdict is not None else "control",
            measure.name,
            measure.kind,
            SignedInterval(measure.effect),
            measure.smallest,
            len(claim.seeds),
            measure.items,
            None if claim.seconds is None else FormattedNumber(claim.seconds, numbers.seconds(claim.seconds)),
        ]
        for claim in claims
        for measure in (*claim.measures, *claim.controls)
    ]
    columns = [
        "claim",
        "verdict",
        "measure",
        "kind",
        "effect",
        "smallest of interest",
        "seeds",
        "items",
        "cost",
    ]
    note = (
        "Cost: all steps behind a claim, from the world on; steps that several claims share count for each of them. "
        "Verdicts are not corrected for the number of claims."
    )
    return Table("claim-effects", "All effects and controls", columns, rows, note=note, folded=True)


def _summary(claims: Sequence[ClaimResult]) -> Table:
    rows: list[list[Cell]] = []
    for claim in claims:
        effect = SignedInterval(claim.measures[0].effect) if claim.measures else None
        rows.append([claim.id, claim.statement, f"{_SIGNS[claim.verdict]} {claim.verdict}", effect])
    return Table("claims", "Claims", ["", "claim", "verdict", "effect"], rows)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _file_name(identifier: str) -> str:
    return re.sub(r"[^\w-]", "-", identifier)
