"""Answers that were given earlier, scored again: files of predictions and evaluations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.work import Work
from priorkit.data.columns import layout_of
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import stem_of
from priorkit.evaluation.benchmarks.items_io import GROUP_COLUMNS
from priorkit.evaluation.results.predictions import answer_columns, is_log, read_answers
from priorkit.evaluation.results.rescore import StoredBenchmark, read_stored
from priorkit.evaluation.results.scored_benchmarks import ScoredBenchmark
from priorkit.evaluation.results.scoring import score_answers
from priorkit.evaluation.runner.compatibility import check_groups, refuse_columns
from priorkit.evaluation.settings import GROUP_BY, EvaluateSettings
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS


@dataclass(frozen=True)
class Predictions:
    """The items and answers of ``--predictions``, one answer per item, and its broken rows."""

    items: list[Item]
    answers: list[ModelAnswer]
    rejects: Rejects


def read_predicted(settings: EvaluateSettings, path: Path) -> Predictions:
    """Read the file of ``--predictions``.

    Raises:
        InputError: the file is empty or damaged, or too many rows are broken.
        UsageError: options name columns that it does not have, or that have no effect.
    """
    if is_log(path):
        refuse_columns(settings, "the columns of a harness's log are known")
    check_answer_columns(settings, path)
    rejects = Rejects(settings.reject_limit)
    task = TASKS[str(settings.task)]
    items, answers = read_answers(
        path, task, rejects, settings.group_columns, settings.limit, layout_of(settings)
    )
    return Predictions(items, answers, rejects)


def score_predictions(
    settings: EvaluateSettings, work: Work[Any], predictions: Predictions
) -> ScoredBenchmark:
    """The answers of ``--predictions``."""
    given, task = work.inputs["predictions"], TASKS[str(settings.task)]
    items, answers = predictions.items, predictions.answers
    scored = score_answers(stem_of(given.path), task, items, answers, settings.scoring_options(None))
    return ScoredBenchmark(
        stem_of(given.path), task, None, given.digest(), items, answers, scored, len(predictions.rejects)
    )


def score_stored(settings: EvaluateSettings, work: Work[Any]) -> list[ScoredBenchmark]:
    """The answers of the evaluation ``--rescore`` names."""
    columns = (*GROUP_COLUMNS, *settings.group_columns)
    stored = read_stored(work.inputs["rescore"].path, columns, settings.limit)
    return [_rescored(settings, benchmark) for benchmark in stored]


def _rescored(settings: EvaluateSettings, stored: StoredBenchmark) -> ScoredBenchmark:
    version = int(stored.entry.get("version", 0))
    scored = score_answers(
        stored.name, stored.task, stored.items, stored.answers, settings.scoring_options(stored.scoring)
    )
    return ScoredBenchmark(
        stored.name, stored.task, stored.mode, str(stored.entry["digest"]), stored.items, stored.answers, scored,
        int(stored.entry["rejected"]), stored.scoring, version,
    )  # fmt: skip


def check_answer_columns(settings: EvaluateSettings, answers: Path) -> None:
    """Check that a file of answers has the columns named by options; without such options it is not read."""
    if settings.cluster or set(settings.group_by) - set(GROUP_BY):
        check_groups(settings.group_by, GROUP_BY, settings.cluster, answer_columns(answers))
