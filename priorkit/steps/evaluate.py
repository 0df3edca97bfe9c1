"""Evaluate a model on benchmarks, or score predictions from anywhere, with an interval for every number."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from priorkit.analysis.paired_results import write_paired_results
from priorkit.architectures.registry import check_model
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.presets.loading import suite, suite_names
from priorkit.evaluation.results.model_entry import describe_model, describe_request
from priorkit.evaluation.results.rescore import read_origin, read_suites
from priorkit.evaluation.results.scored_benchmarks import (
    ScoredBenchmark,
    summarise,
    summarise_suites,
    write_results,
)
from priorkit.evaluation.results.summary import say_results
from priorkit.evaluation.runner.model_answers import ask_model, judge_all
from priorkit.evaluation.runner.plan import EvaluationPlan, plan_evaluation
from priorkit.evaluation.runner.stored_answers import score_predictions, score_stored
from priorkit.evaluation.settings import EvaluateSettings


def plan(settings: EvaluateSettings, inputs: Inputs) -> Plan[EvaluationPlan]:
    """Check model, benchmarks and how they fit, from headers and columns."""
    return plan_evaluation(settings, inputs, check_model)


def execute(settings: EvaluateSettings, work: Work[EvaluationPlan]) -> None:
    """Ask, read, score, and put an interval on every number."""
    job = work.plan.payload
    rejects = job.predictions.rejects if job.predictions else Rejects(settings.reject_limit)
    begun = time.monotonic()
    done, about = _answers(settings, work, job, rejects)
    seconds = time.monotonic() - begun
    if runtime.rank() != 0:
        return
    _summarise(settings, work, done, about)
    given = [work.inputs.optional(name) for name in ("compare", "blind_scores", "base_scores")]
    other, blind, base = (item.path if item else None for item in given)
    write_paired_results(work.path, other, blind, base, settings.seed, settings.resamples)
    rejects.write(work.path)
    items = sum(len(benchmark.items) for benchmark in done)
    work.metrics.update(items=items, rejected=len(rejects))
    work.cost.update(items_per_second=round(items / max(seconds, 1e-9), 2))


def _answers(
    settings: EvaluateSettings, work: Work[EvaluationPlan], job: EvaluationPlan, rejects: Rejects
) -> tuple[list[ScoredBenchmark], dict[str, Any]]:
    """Scored answers to each benchmark, and what the results say of their origin."""
    about: dict[str, Any] = {"model": None}
    if settings.rescore:
        done = score_stored(settings, work)
        about = {**read_origin(work.inputs["rescore"].path), "rescored": settings.rescore}
    elif job.predictions is not None:
        done = [score_predictions(settings, work, job.predictions)]
    else:
        assert job.model is not None  # checked in the plan
        done = ask_model(settings, work, job.model, job.benchmarks, rejects, job.box_request, job.backend)
        about["model"] = describe_model(settings, work, job.model)
        about["asked"] = describe_request(settings, job.model, job.backend)
    return (judge_all(settings, work, done) if settings.judge else done), about


def _summarise(
    settings: EvaluateSettings,
    work: Work[EvaluationPlan],
    done: Sequence[ScoredBenchmark],
    about: dict[str, Any],
) -> None:
    """Metrics with intervals of benchmarks and suites: written, printed, and put in the manifest."""
    summaries = {
        benchmark.name: summarise(
            benchmark,
            group_by=settings.group_by,
            seed=settings.seed,
            resamples=settings.resamples,
            cluster=settings.cluster or "",
        )
        for benchmark in done
    }
    full_scores = {benchmark.name: benchmark.scoring.full_score for benchmark in done if benchmark.scoring}
    suites = summarise_suites(_suites(settings, work), summaries, full_scores)
    entries = {name: summary.entry for name, summary in summaries.items()}
    write_results(work.path, done, entries, {**about, "suites": suites} if suites else about)
    for name, summary in summaries.items():
        work.metrics[name] = {metric: entry["value"] for metric, entry in summary.entry["metrics"].items()}
    for name, scores in suites.items():
        work.metrics[f"suite {name}"] = scores["overall"]["value"]
    say_results(summaries, suites)


def _suites(settings: EvaluateSettings, work: Work) -> dict[str, Mapping[str, Sequence[str]]]:
    """Those of the evaluation that is rescored, and those named on the command line."""
    stored = read_suites(work.inputs["rescore"].path) if settings.rescore else {}
    return {**stored, **{name: suite(name).groups for name in settings.benchmarks if name in suite_names()}}


STEP = Step(EvaluateSettings, plan, execute)
run = STEP.run
