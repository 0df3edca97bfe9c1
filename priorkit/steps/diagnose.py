"""Diagnose a multimodal model: why it fails on an entity, which part is at fault, and what would help."""

from __future__ import annotations

import logging
from typing import Any

from priorkit.analysis.diagnosis.plan import DiagnosisPlan, plan_diagnosis
from priorkit.analysis.diagnosis.settings import DiagnoseSettings
from priorkit.architectures.registry import check_model
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.io.rejects import Rejects

logger = logging.getLogger(__name__)


def plan(settings: DiagnoseSettings, inputs: Inputs) -> Plan[DiagnosisPlan]:
    """Check model, images, facts, names and files from headers and rows."""
    return plan_diagnosis(settings, inputs, check_model)


def execute(settings: DiagnoseSettings, work: Work[DiagnosisPlan]) -> None:
    """Ask about every image, probe the states along its way, test part by part, write verdicts and remedies."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.analysis.diagnosis import output
    from priorkit.analysis.diagnosis.collecting import collect, evidence_of
    from priorkit.analysis.diagnosis.judging import consequences, judge
    from priorkit.analysis.diagnosis.naming_counts import read_counts
    from priorkit.analysis.diagnosis.reading import read_subjects
    from priorkit.inference.diagnosis.loading import load_asker

    # What is asked and read.
    rejects = Rejects(settings.reject_limit)
    asker = load_asker(
        work.plan.payload.model, started, work.state / "answers", settings.batch_size, settings.workers
    )
    with started.autocast():
        subjects = read_subjects(settings, work, asker, rejects, started)
        readings = collect(settings, asker, subjects.entities, subjects.facts, work.scratch)
    counts = read_counts(work, subjects.entities.entities)
    rejects.write(work.path)

    # Evidence, verdicts, remedies.
    bootstrap = {"seed": settings.seed, "resamples": settings.resamples}
    evidence = evidence_of(readings, subjects.ranks, counts, **bootstrap)
    verdicts, controls, about = judge(settings, work, evidence)
    results: dict[str, Any] = {
        **output.overall_results(readings, evidence, verdicts, **bootstrap),
        **about,
        **consequences(settings, work, evidence, verdicts),
    }
    output.write_table_of_entities(
        work.path, evidence, verdicts, controls, output.confusions(readings), subjects.unwritable
    )
    output.write_images(work.path, readings)
    output.write_results(work.path, results)
    logger.info(f"  {results['entities']} entities: {output.describe_verdicts(results['verdicts'])}")
    work.metrics.update(
        **{
            name: results[name]
            for name in ("entities", "images", "verdicts", "verdicts_by", "control_entities")
        },
        accuracy=results["means"]["accuracy"],
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
        names_that_cannot_be_written=len(subjects.unwritable),
        measures=output.meanings(),
        tensors=output.TENSORS,
    )


STEP = Step(DiagnoseSettings, plan, execute)
run = STEP.run
