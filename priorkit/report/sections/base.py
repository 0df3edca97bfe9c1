"""What a section is, and the sections of the page in order."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from priorkit.data.results.artifact_graph import Members
from priorkit.report.blocks import Section


class SectionBuilder(Protocol):
    """Builds one section of the page."""

    def __call__(self, members: Members, /) -> Section | None:
        """The section, or None if the artifacts for it are not among the members.

        Raises:
            InputError: an artifact's file is missing or damaged.
        """
        ...


SECTIONS = (
    "findings.opening.findings_section",
    "claims.claims_section",
    "priors.ranks.ranks_section",
    "priors.ranks.off_domain_section",
    "evaluations.seeds.seeds_section",
    "priors.trade_off.trade_off_section",
    "evaluations.accuracy.accuracy_section",
    "evaluations.mle.mle_section",
    "evaluations.grounding.grounding_section",
    "evaluations.comparison.differences_section",
    "diagnosis.diagnosis_section",
    "priors.correlation.correlation_section",
    "evaluations.abilities.abilities_section",
    "evaluations.comparison.language_section",
    "evaluations.examples.examples_section",
    "runs.lineage_section",
    "runs.mixture_section",
    "runs.training_section",
    "runs.cost_section",
    "runs.versions_section",
)
"""Builders as ``MODULE.FUNCTION`` of this package: first what was found, then how it was made."""

_OF_CLAIMS_TOO = (
    "findings.opening.findings_section",
    "claims.claims_section",
    "runs.cost_section",
    "runs.versions_section",
)
"""Builders that are given the artifacts of claims too: comparing dozens of arms with each other would say nothing."""


def load_builder(name: str) -> SectionBuilder:
    """The builder with a name as in :data:`SECTIONS`."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(f"priorkit.report.sections.{module}"), function)


def build_sections(members: Members) -> list[Section]:
    """The sections that the artifacts allow, in the page's order.

    Raises:
        InputError: an artifact's file is missing or damaged.
    """
    beyond = members.beyond_claims()
    sections: list[Section] = []
    for name in SECTIONS:
        shown = members if name in _OF_CLAIMS_TOO else beyond
        section = load_builder(name)(shown) if shown.all else None
        if section is not None:
            sections.append(section)
    return sections
