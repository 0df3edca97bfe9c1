"""Put artifacts into one HTML page with plots and tables."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import field_validator

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, Problems
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings, argument, option, resamples_option
from priorkit.core.options.specs import option_specs
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.results.named_artifacts import KINDS, Labelled
from priorkit.training.engine.settings import TrainingSettings

if TYPE_CHECKING:
    from priorkit.analysis.claims.deciding import PreparedClaim
    from priorkit.data.results.artifact_graph import Members

logger = logging.getLogger(__name__)


class ReportSettings(StepSettings):
    """Options of ``priorkit report``."""

    step: ClassVar[str] = "report"
    kind: ClassVar[str] = "report"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit report ranks evaluation correlation --out report",
        "priorkit report before=ranks-before after=ranks-after original=eval-before remediated=eval-after "
        '--title "What remediation changed" --out report',
    )

    artifacts: Labelled = argument(
        "Artifacts to show; NAME= sets the name shown instead of the folder's. Evaluations NAME@1=, NAME@2= "
        "are one variant with several seeds, shown as mean and interval. Their inputs are "
        "found automatically.",
        accepts=KINDS,
        metavar="[NAME=]ARTIFACT",
    )
    entities: str | None = option(
        None,
        "Table with a row per entity and its 'prior' group; default: that of a world among the artifacts.",
        accepts=("world",),
        metavar="FILE",
    )
    claims: str | None = option(
        None,
        "TOML file of claims to decide, docs/claims.md has its format; 'claims' for those that priorkit ships.",
        accepts=("claims",),
        metavar="FILE",
    )
    title: str = option("What the models see and know", "Heading of the page.")
    resamples: int = resamples_option("items or entities")
    seed: int = option(42, "Seed of the resampling.", ge=0)

    @field_validator("claims")
    @classmethod
    def _shipped_by_name(cls, claims: str | None) -> str | None:
        return None if claims is None else str(recipe.find(claims))


@dataclass(frozen=True)
class ReportPlan:
    """What a report shows.

    Attributes:
        members: the artifacts.
        claims: claims with their scores; empty without ``--claims``.
    """

    members: Members
    claims: Sequence[PreparedClaim]


def plan(settings: ReportSettings, inputs: Inputs) -> Plan[ReportPlan]:
    """Check that every input is an artifact, that evaluations can be read, the table of entities, and the claims."""
    from priorkit.data.results.artifact_graph import Members, entity_column, gather, prior_groups
    from priorkit.data.results.evaluations import read_results

    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    given: dict[str, Artifact] = {}
    for label, item in inputs.items():
        try:
            if label == "entities":
                entity_column(item.path, "prior")
                continue
            if label == "claims":
                continue
            if item.owner is None or item.kind.startswith("part of"):
                raise InputError(
                    "not an artifact: it has no priorkit.json",
                    where=item.given,
                    hint="give folders made by priorkit",
                )
            if item.kind == "evaluation":
                read_results(item.path)
            given[label.partition(".")[2]] = item.owner
            facts.append((label.partition(".")[2], f"{item.kind} made by {item.owner.manifest.step}"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    gathered = gather(given)
    if settings.entities:
        column = entity_column(inputs["entities"].path, "prior")
        priors = {name: str(prior) for name, prior in column.items()}
    else:
        priors = prior_groups(gathered)
    members = Members(gathered, priors, settings.seed, settings.resamples)
    prepared = _prepare(inputs, members) if settings.claims else []
    facts += [(f"claim {item.claim.id}", item.not_run or "can be decided") for item in prepared]
    return Plan(facts, payload=ReportPlan(members, prepared))


def _prepare(inputs: Inputs, members: Members) -> list[PreparedClaim]:
    """Read the claims and find what decides them."""
    from priorkit.analysis.claims.deciding import prepare

    table = inputs.optional("entities")
    return prepare(inputs["claims"].path, members.all, table.path if table else None, _without_effect())


def _without_effect() -> set[str]:
    """Settings that change no result, in which seeds of a claim may differ."""
    return {spec.name for spec in option_specs(TrainingSettings).values() if not spec.changes_result}


def execute(settings: ReportSettings, work: Work[ReportPlan]) -> None:
    """Decide the claims, build the sections, write the page and its files."""
    from priorkit.analysis.claims.deciding import decide_claims, store
    from priorkit.report import page
    from priorkit.report.sections.base import build_sections

    members = work.plan.payload.members
    if settings.claims:
        decided = decide_claims(
            work.plan.payload.claims, members.all, seed=settings.seed, resamples=settings.resamples
        )
        store(decided, work.path)
        work.metrics["claims"] = {claim.id: claim.verdict for claim in decided}
        members = replace(members, claims=decided)
    sections = build_sections(members)
    page.write(sections, settings.title, work.path)
    given = sum(member.given for member in members.all)
    work.metrics.update(
        artifacts=given,
        found_behind_them=len(members.all) - given,
        sections=[section.anchor for section in sections],
    )
    for sentences in page.findings(sections):
        logger.info(f"\n{textwrap.fill(sentences, 100)}")
    for table in page.headline(sections):
        logger.info(f"\n{table.text()}")
    logger.info("")


STEP = Step(ReportSettings, plan, execute)
run = STEP.run
