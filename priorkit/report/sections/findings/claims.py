"""How many claims were supported, and which were not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from priorkit.data.results.artifact_graph import Members
from priorkit.data.results.claim_results import ClaimResult, Verdict
from priorkit.report.blocks import Finding
from priorkit.report.sections.findings.wording import known, listed, signed


def claims_finding(members: Members) -> Finding | None:
    """The verdicts, each with its claims; those other than supported with the effect that decided."""
    if not members.claims:
        return None
    count = len(members.claims)
    parts = [
        f"{len(claims)} {'is' if len(claims) == 1 else 'are'} {verdict} ({_named(claims, verdict)})"
        if verdict != "not run"
        else f"{len(claims)} {'was' if len(claims) == 1 else 'were'} not run ({_named(claims, verdict)})"
        for verdict in get_args(Verdict)
        if (claims := [claim for claim in members.claims if claim.verdict == verdict])
    ]
    subject = "The one claim that was stated" if count == 1 else f"Of {count} claims that were stated"
    if count == 1:
        parts = [part.removeprefix("1 ") for part in parts]
        return Finding(f"{subject} {parts[0]}.", "claims")
    return Finding(f"{subject}, {listed(parts, most=len(parts))}.", "claims")


def _named(claims: Sequence[ClaimResult], verdict: Verdict) -> str:
    if verdict == "not run":
        return listed([claim.id for claim in claims], most=len(claims))
    return listed([_with_effect(claim) for claim in claims], most=len(claims))


def _with_effect(claim: ClaimResult) -> str:
    """The claim with its effect; of several that decide together the smallest, which holds it back."""
    effects = [measure.effect for measure in claim.measures if known(measure.effect)]
    if len(effects) < len(claim.measures) or not effects:
        return claim.id
    return f"{claim.id} {signed(min(effects, key=lambda effect: effect.value))}"
