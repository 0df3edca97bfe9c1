"""Answers that were given earlier, scored again: files of predictions and evaluations."""

from __future__ import annotations

from typing import Any

from priorkit.core.work import Work
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import stem_of
from priorkit.evaluation.benchmarks.items_io import GROUP_COLUMNS
from priorkit.evaluation.results.predictions import read_answers
from priorkit.evaluation.results.rescore import StoredBenchmark, read_stored
from priorkit.evaluation.results.scored_benchmarks import ScoredBenchmark
from priorkit.evaluation.results.scoring import score_answers
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.evaluation.tasks.registry import TASKS


def score_predictions(settings: EvaluateSettings, work: Work[Any], rejects: Rejects) -> ScoredBenchmark:
    """The answers of ``--predictions``."""
    given = work.inputs["predictions"]
    task = TASKS[str(settings.task)]
    items, answers = read_answers(given.path, task, rejects, settings.group_columns, settings.limit)
    scored = score_answers(stem_of(given.path), task, items, answers, settings.scoring_options(None))
    return ScoredBenchmark(
        stem_of(given.path), task, None, given.digest(), items, answers, scored, len(rejects)
    )


def score_stored(settings: EvaluateSettings, work: Work[Any]) -> list[ScoredBenchmark]:
    """The answers of the evaluation ``--rescore`` names."""
    columns = (*GROUP_COLUMNS, *settings.group_columns)
    found = read_stored(work.inputs["rescore"].path, columns, settings.limit)
    return [_rescored(settings, kept) for kept in found]


def _rescored(settings: EvaluateSettings, kept: StoredBenchmark) -> ScoredBenchmark:
    version = int(kept.entry.get("version", 0))
    scored = score_answers(
        kept.name, kept.task, kept.items, kept.answers, settings.scoring_options(kept.scoring)
    )
    return ScoredBenchmark(
        kept.name, kept.task, kept.mode, str(kept.entry["digest"]), kept.items, kept.answers, scored,
        int(kept.entry["rejected"]), kept.scoring, version,
    )  # fmt: skip
