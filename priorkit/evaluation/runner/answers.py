"""Where an evaluation's scored answers come from: a model, a file, an earlier evaluation. A part of ``evaluate``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from priorkit.core import runtime
from priorkit.core.work import Work
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, stem_of
from priorkit.evaluation.benchmarks.items_io import GROUP_COLUMNS, read_items
from priorkit.evaluation.presets.loading import PresetScoring
from priorkit.evaluation.results.predictions import read_answers
from priorkit.evaluation.results.rescore import StoredBenchmark, read_stored
from priorkit.evaluation.results.results import ScoredBenchmark
from priorkit.evaluation.runner.image_shuffling import shuffle_images
from priorkit.evaluation.runner.judging import load_judge, read_rubric
from priorkit.evaluation.runner.runner import ModelRunner, RunnerOptions, load_runner
from priorkit.evaluation.tasks.base import AnswerMode, ScoringOptions
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.inference.answer_cache import AnswerCache

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import Checked
    from priorkit.steps.evaluate import EvaluateSettings

logger = logging.getLogger(__name__)

EXPLANATION_TOKENS = 256
"""Longest written answer with --explain, where --max-new-tokens says nothing."""


def ask_model(
    settings: EvaluateSettings,
    work: Work,
    model: Checked,
    benchmarks: Sequence[tuple[BenchmarkSource, AnswerMode]],
    rejects: Rejects,
) -> list[ScoredBenchmark]:
    """All benchmarks in order; under torchrun the processes share the items of each."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.core import distributed

    distributed.start(started)
    distributed.barrier()  # The first process has claimed the artifact's folder.
    manner = RunnerOptions(
        settings.prompt, settings.choices, settings.template, settings.batch_size,
        settings.max_new_tokens or (EXPLANATION_TOKENS if settings.explain else None), settings.circular,
        read_rubric(work.inputs["rubric"].path if settings.rubric else None).instruction if settings.explain else "",
        settings.workers,
    )  # fmt: skip
    asker = load_runner(model, manner, started)
    done = [_ask_benchmark(settings, work, source, way, rejects, asker) for source, way in benchmarks]
    distributed.barrier()
    return done


def _ask_benchmark(
    settings: EvaluateSettings,
    work: Work,
    source: BenchmarkSource,
    way: AnswerMode,
    rejects: Rejects,
    asker: ModelRunner,
) -> ScoredBenchmark:

    own = Rejects(settings.reject_limit)
    items = read_items(
        source,
        own,
        group_by=_kept(settings),
        limit=settings.limit,
        see=not settings.blind,
        workers=settings.workers,
    )
    if source.preset is not None and not settings.limit and source.preset.data.items not in (0, len(items)):
        logger.warning(
            f"{source.name} has {len(items)} items, {source.preset.data.items} were expected: another release?"
        )
    if settings.shuffle_images and source.visual:
        items = shuffle_images(items, settings.seed, source.name)
    journal = AnswerCache(work.state / "answers", source.name)
    items, answers = asker(items, source, way, own, journal)
    rejects.accept(own.total - len(own))
    for row in own.rows:
        rejects.add(str(row["file"]), int(row["row"]), str(row["reason"]))
    scoring = source.preset.scoring if source.preset else None
    scored = source.task.score(items, answers, _rules(settings, scoring))
    return ScoredBenchmark(
        source.name, source.task, way, source.digest(), items, answers, scored, len(own),
        scoring, source.preset.version if source.preset else 0,
    )  # fmt: skip


def score_predictions(settings: EvaluateSettings, work: Work, rejects: Rejects) -> ScoredBenchmark:
    """The answers of ``--predictions``."""
    given = work.inputs["predictions"]
    task = TASKS[str(settings.task)]
    items, answers = read_answers(given.path, task, rejects, _kept(settings), settings.limit)
    scored = task.score(items, answers, _rules(settings, None))
    return ScoredBenchmark(
        stem_of(given.path), task, None, given.digest(), items, answers, scored, len(rejects)
    )


def score_again(settings: EvaluateSettings, work: Work) -> list[ScoredBenchmark]:
    """The answers of the evaluation ``--rescore`` names."""
    columns = (*GROUP_COLUMNS, *_kept(settings))
    found = read_stored(work.inputs["rescore"].path, columns, settings.limit)
    return [_rescored(settings, kept) for kept in found]


def _rescored(settings: EvaluateSettings, kept: StoredBenchmark) -> ScoredBenchmark:
    version = int(kept.entry.get("version", 0))
    scored = kept.task.score(kept.items, kept.answers, _rules(settings, kept.scoring))
    return ScoredBenchmark(
        kept.name, kept.task, kept.way, str(kept.entry["digest"]), kept.items, kept.answers, scored,
        int(kept.entry["rejected"]), kept.scoring, version,
    )  # fmt: skip


def judge_all(
    settings: EvaluateSettings, work: Work, done: Sequence[ScoredBenchmark]
) -> list[ScoredBenchmark]:
    """Soundness and depth of what was written; benchmarks that were compared have nothing to judge."""
    from priorkit.core import distributed

    started = runtime.start(settings.seed, settings.device, settings.precision)
    distributed.start(started)
    rubric = read_rubric(work.inputs["rubric"].path if settings.rubric else None)
    judge = load_judge(work.inputs["judge"].path, rubric, settings.batch_size, started)
    judged = [
        judge(own, AnswerCache(work.state / "verdicts", own.name)) if own.way in ("generation", None) else own
        for own in done
    ]
    distributed.barrier()
    return judged


def _kept(settings: EvaluateSettings) -> tuple[str, ...]:
    """Columns that the intervals and the metrics of groups need beside every item."""
    return (*settings.group_by, *([settings.cluster] if settings.cluster else []))


def _rules(settings: EvaluateSettings, scoring: PresetScoring | None) -> ScoringOptions:
    reading, box_space = settings.reading, settings.box_space
    if reading == "auto" and scoring is not None:
        reading = scoring.reading
    if box_space == "auto":
        box_space = scoring.box_space if scoring is not None else "unit"
    return ScoringOptions(settings.parser, strict=reading == "strict", box_space=box_space)
