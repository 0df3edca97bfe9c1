"""Benchmarks answered by a model and scored, and written answers judged by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from priorkit.core.process import runtime
from priorkit.core.work import Work
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.benchmarks.items_io import read_items
from priorkit.evaluation.results.scored_benchmarks import ScoredBenchmark
from priorkit.evaluation.results.scoring import score_answers
from priorkit.evaluation.runner.image_shuffling import shuffle_images
from priorkit.evaluation.runner.judging import load_judge, read_rubric
from priorkit.evaluation.runner.runner import BackendName, ModelRunner, RunnerOptions, load_runner
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.evaluation.tasks.base import AnswerMode
from priorkit.inference.answer_cache import AnswerCache

if TYPE_CHECKING:
    from priorkit.inference.model_info import ModelInfo

logger = logging.getLogger(__name__)

EXPLANATION_TOKENS = 256
"""Longest written answer with --explain, where --max-new-tokens says nothing."""


def ask_model(
    settings: EvaluateSettings,
    work: Work[Any],
    model: ModelInfo,
    benchmarks: Sequence[tuple[BenchmarkSource, AnswerMode]],
    rejects: Rejects,
    box_request: str,
    backend: BackendName,
) -> list[ScoredBenchmark]:
    """All benchmarks in order; under torchrun the processes share the items of each."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.core.process import distributed

    distributed.start(started)
    distributed.barrier()  # The first process has claimed the artifact's folder.
    options = RunnerOptions(
        settings.prompt, settings.choices, settings.template, settings.batch_size,
        settings.max_new_tokens or (EXPLANATION_TOKENS if settings.explain else None), settings.circular,
        read_rubric(work.inputs["rubric"].path if settings.rubric else None).instruction if settings.explain else "",
        settings.workers, settings.bos_token, settings.region_layer, box_request,
        settings.chat_template, backend, settings.max_image_pixels,
    )  # fmt: skip
    run = load_runner(model, options, started)
    done = [_answer_benchmark(settings, work, source, mode, rejects, run) for source, mode in benchmarks]
    distributed.barrier()
    return done


def _answer_benchmark(
    settings: EvaluateSettings,
    work: Work[Any],
    source: BenchmarkSource,
    mode: AnswerMode,
    rejects: Rejects,
    run: ModelRunner,
) -> ScoredBenchmark:
    rejected = Rejects(settings.reject_limit)
    items = read_items(
        source,
        rejected,
        group_by=settings.group_columns,
        limit=settings.limit,
        show_images=not settings.blind,
        workers=settings.workers,
    )
    if source.preset is not None and not settings.limit and source.preset.data.items not in (0, len(items)):
        logger.warning(
            f"{source.name} has {len(items)} items, {source.preset.data.items} were expected: another release?"
        )
    if settings.shuffle_images and source.visual:
        items = shuffle_images(items, settings.seed, source.name)
    answer_cache = AnswerCache(work.state / "answers", source.name)
    items, answers = run(items, source, mode, rejected, answer_cache)
    rejects.accept(rejected.total - len(rejected))
    for row in rejected.rows:
        rejects.add(str(row["file"]), int(row["row"]), str(row["reason"]))
    scoring = source.preset.scoring if source.preset else None
    scored = score_answers(
        source.name, source.task, items, answers, settings.scoring_options(scoring, source.name)
    )
    return ScoredBenchmark(
        source.name, source.task, mode, source.digest(), items, answers, scored, len(rejected),
        scoring, source.preset.version if source.preset else 0,
    )  # fmt: skip


def judge_all(
    settings: EvaluateSettings, work: Work[Any], done: Sequence[ScoredBenchmark]
) -> list[ScoredBenchmark]:
    """Soundness and depth of what was written; benchmarks that were compared have nothing to judge."""
    from priorkit.core.process import distributed

    started = runtime.start(settings.seed, settings.device, settings.precision)
    distributed.start(started)
    rubric = read_rubric(work.inputs["rubric"].path if settings.rubric else None)
    judge = load_judge(work.inputs["judge"].path, rubric, settings.batch_size, started)
    judged = [
        judge(benchmark, AnswerCache(work.state / "verdicts", benchmark.name))
        if benchmark.mode in ("generation", None)
        else benchmark
        for benchmark in done
    ]
    distributed.barrier()
    return judged
