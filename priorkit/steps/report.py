"""Put artifacts into one HTML page with plots and tables."""

from __future__ import annotations

import logging
from typing import ClassVar

from priorkit.core.artifact import Artifact
from priorkit.core.errors import InputError, Problems
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.results.named_artifacts import KINDS, Labelled

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
    title: str = option("What the models see and know", "Heading of the page.")
    resamples: int = option(1000, "Bootstrap resamples of the intervals.", ge=100, advanced=True)
    seed: int = option(42, "Seed of the resampling.", ge=0)


def plan(settings: ReportSettings, inputs: Inputs) -> Plan[None]:
    """Check that every input is an artifact, that evaluations can be read, and the table of entities."""
    from priorkit.data.results.artifact_graph import entity_column
    from priorkit.data.results.evaluations import read_results

    problems = Problems(InputError)
    facts: list[tuple[str, str]] = []
    for label, item in inputs.items():
        try:
            if label == "entities":
                entity_column(item.path, "prior")
                continue
            if item.owner is None or item.kind.startswith("part of"):
                raise InputError(
                    "not an artifact: it has no priorkit.json",
                    where=item.given,
                    hint="give folders made by priorkit",
                )
            if item.kind == "evaluation":
                read_results(item.path)
            facts.append((label.partition(".")[2], f"{item.kind} made by {item.owner.manifest.step}"))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    return Plan(facts)


def execute(settings: ReportSettings, work: Work[None]) -> None:
    """Follow the artifacts' lineage, build the sections, write the page and its files."""
    from priorkit.data.results.artifact_graph import Members, entity_column, gather, prior_groups
    from priorkit.report import page
    from priorkit.report.sections.base import build_sections

    given: dict[str, Artifact] = {}
    for label, item in work.inputs.named("artifacts").items():
        if item.owner is not None:
            given[label] = item.owner
    gathered = gather(given)
    if settings.entities:
        column = entity_column(work.inputs["entities"].path, "prior")
        priors = {name: str(prior) for name, prior in column.items()}
    else:
        priors = prior_groups(gathered)
    members = Members(gathered, priors, settings.seed, settings.resamples)
    sections = build_sections(members)
    page.write(sections, settings.title, work.path)
    work.metrics.update(
        artifacts=len(given),
        found_behind_them=len(gathered) - len(given),
        sections=[section.anchor for section in sections],
    )
    for table in page.headline(sections):
        logger.info(f"\n{table.text()}")
    logger.info("")


STEP = Step(ReportSettings, plan, execute)
run = STEP.run
