"""The opening of the page: the most important findings that the artifacts allow, in plain sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from priorkit.data.results.artifact_graph import Members
from priorkit.report.blocks import Finding, FindingList, Section
from priorkit.report.sections.findings.claims import claims_finding
from priorkit.report.sections.findings.comparison import comparison_finding
from priorkit.report.sections.findings.diagnosis import diagnosis_finding
from priorkit.report.sections.findings.grounding import grounding_finding
from priorkit.report.sections.findings.measures import measures_finding
from priorkit.report.sections.findings.priors import correlation_finding, rank_finding, trade_off_finding
from priorkit.report.sections.findings.runs import corpora_finding, no_measurements, training_finding
from priorkit.report.sections.findings.seeds import seeds_finding
from priorkit.report.sections.findings.seeing import seeing_finding

MOST = 4
"""Findings shown at most."""

MOST_PICTURES = 2
"""Pictures shown at most, those of the first findings that have one."""

BUILDERS: tuple[Callable[[Members], Finding | None], ...] = (
    claims_finding,
    seeds_finding,
    seeing_finding,
    rank_finding,
    grounding_finding,
    diagnosis_finding,
    correlation_finding,
    comparison_finding,
    trade_off_finding,
    measures_finding,
    training_finding,
    corpora_finding,
)
"""What makes a finding where its artifacts are given, the most important first."""


def findings_section(members: Members) -> Section | None:
    """The first findings of :data:`BUILDERS` that there are; that nothing was measured where there are none."""
    others = members.beyond_claims()
    found: list[Finding] = []
    for build in BUILDERS:
        shown = members if build is claims_finding else others
        finding = build(shown) if len(found) < MOST else None
        if finding is not None:
            found.append(finding)
    if not found:
        found = no_measurements(members)
    pictured = [finding for finding in found if finding.picture is not None][:MOST_PICTURES]
    kept = [finding if finding in pictured else replace(finding, picture=None) for finding in found]
    intro = "Figures in brackets are 95 % intervals. What an interval does not decide is called undecided."
    return Section("findings", "What was found", intro, [FindingList(kept)], opening=True) if kept else None
