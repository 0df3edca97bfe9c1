"""The plan of an evaluation: everything that can be checked before a model is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.work import Inputs, Plan
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, stem_of
from priorkit.evaluation.results.rescore import check_versions, read_entries
from priorkit.evaluation.runner.backends.checks import check_backend
from priorkit.evaluation.runner.compatibility import (
    answer_mode_of,
    check_groups,
    check_patches,
    check_sight,
    choose_box_request,
    refuse_columns,
)
from priorkit.evaluation.runner.judging import check_judge, read_rubric
from priorkit.evaluation.runner.memory_estimate import disk_of, memory_of
from priorkit.evaluation.runner.request_checks import check_paired, check_request, refuse_model_options
from priorkit.evaluation.runner.stored_answers import Predictions, check_answer_columns, read_predicted
from priorkit.evaluation.settings import GROUP_BY, EvaluateSettings
from priorkit.evaluation.tasks.base import AnswerMode
from priorkit.evaluation.tasks.registry import TASKS

if TYPE_CHECKING:
    from priorkit.inference.backends.settings import BackendName
    from priorkit.inference.model_info import ModelInfo


@dataclass(frozen=True)
class EvaluationPlan:
    """What ``plan`` found.

    Attributes:
        model: what is asked; None where answers were given earlier.
        benchmarks: each with how it is to be asked.
        box_request: the sentence that asks for a box.
        predictions: the answers of ``--predictions``; None without.
        backend: what runs the model.
    """

    model: ModelInfo | None
    benchmarks: tuple[tuple[BenchmarkSource, AnswerMode], ...]
    box_request: str = ""
    predictions: Predictions | None = None
    backend: BackendName = "priorkit"


def plan_evaluation(
    settings: EvaluateSettings, inputs: Inputs, check_model: Callable[[Path], ModelInfo]
) -> Plan[EvaluationPlan]:
    """Check model, benchmarks and how they fit, from headers and columns."""
    judges = [check_judge(inputs["judge"].path)] if settings.judge else []
    if settings.rubric:
        read_rubric(inputs["rubric"].path)
    if settings.predictions:
        return _plan_predictions(settings, inputs, judges)
    check_request(settings, inputs)
    sources = settings.benchmark_sources(inputs)
    if sources and all(source.preset for source in sources):
        refuse_columns(settings, "a preset names its columns itself")
    if settings.rescore:
        refuse_columns(settings, "--rescore reads the samples of an evaluation")
        entries = read_entries(inputs["rescore"].path)
        check_versions(entries, sources, settings.rescore)
        check_answer_columns(settings, inputs["rescore"].path / "samples.jsonl")
        check_paired(settings, inputs, list(entries))
        facts = [(name, str(entry["task"])) for name, entry in entries.items()]
        return _plan_without(facts, inputs["rescore"].path / "samples.jsonl", judges, settings)
    check_paired(settings, inputs, [source.name for source in sources])
    checked = check_model(inputs["model"].path)
    settings.check_template(
        "an encoder has no conversations"
        if checked.kind == "encoder"
        else "--prompt plain uses none"
        if settings.prompt == "plain"
        else ""
    )
    columns = {column for source in sources for column in source.columns}
    check_groups(settings.group_by, GROUP_BY, settings.cluster, columns)
    check_sight(str(settings.model), checked, sources, blind=settings.blind, shuffle=settings.shuffle_images)
    check_patches(settings, str(settings.model), checked, sources)
    backend = check_backend(settings, checked)
    jobs: list[tuple[BenchmarkSource, AnswerMode]] = [
        (source, answer_mode_of(source.task, checked.kind, settings.mode_of(source.name, checked.kind)))
        for source in sources
    ]
    facts = [("model", checked.kind + (" with adapter" if checked.adapter else ""))]
    facts += [("back end", backend)] if backend != "priorkit" else []
    facts += [(source.name, f"{source.task.name} by {mode}") for source, mode in jobs]
    box_format, box_request = choose_box_request(settings.box_format, inputs["model"], checked, sources)
    facts += [("boxes", f"asked for in {box_format}")] if box_format else []
    return Plan(
        facts,
        disk_bytes=disk_of(sources, settings.limit),
        memory_bytes=memory_of([checked, *judges], sources, settings.device),
        payload=EvaluationPlan(checked, tuple(jobs), box_request, backend=backend),
    )


def _plan_predictions(
    settings: EvaluateSettings, inputs: Inputs, judges: Sequence[ModelInfo]
) -> Plan[EvaluationPlan]:
    problems = Problems(UsageError)
    if settings.model or settings.benchmarks or settings.rescore:
        problems.add("--predictions takes no MODEL, no BENCHMARK and no --rescore", where="--predictions")
    if settings.task is None:
        problems.add("--predictions needs --task", where="--task", hint=f"one of {', '.join(TASKS)}")
    elif not TASKS[settings.task].from_predictions:
        problems.add(f"'{settings.task}' cannot be scored from written answers", where="--task")
    refuse_model_options(settings, "--predictions", problems)
    problems.raise_if_any()
    path = inputs["predictions"].path
    if not path.is_file():
        raise InputError("expected a JSON Lines file", where=f"--predictions {settings.predictions}")
    check_paired(settings, inputs, [stem_of(path)])
    facts = [("predictions", path.name), ("task", str(settings.task))]
    planned = _plan_without(facts, path, judges, settings)
    # A file of answers is small, and nothing else is read.
    return replace(planned, payload=EvaluationPlan(None, (), predictions=read_predicted(settings, path)))


def _plan_without(
    facts: list[tuple[str, str]], answers: Path, judges: Sequence[ModelInfo], settings: EvaluateSettings
) -> Plan[EvaluationPlan]:
    """The plan where no model is asked: samples take about as much as the answers that they are made from."""
    return Plan(
        facts,
        disk_bytes=2 * answers.stat().st_size if answers.is_file() else 0,
        memory_bytes=memory_of(judges, (), settings.device),
        payload=EvaluationPlan(None, ()),
    )
