"""The files of an evaluation: ``results.json``, ``samples.jsonl``, ``scores.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.core.interval import finite
from priorkit.data.results.evaluation_files import write_evaluation
from priorkit.evaluation.presets.schema import PresetScoring
from priorkit.evaluation.results.abstention import with_abstention
from priorkit.evaluation.tasks.base import AnswerMode, Task, TaskScores
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.refusals import abstains
from priorkit.scoring.statistics.bootstrap import (
    BootstrapEstimate,
    bootstrap_metrics,
    detectable_difference,
    mean_of_metrics,
    metrics_to_dict,
)


@dataclass(frozen=True)
class ScoredBenchmark:
    """One benchmark with the model's answers and their scores.

    Attributes:
        scoring: how its preset counts answers; None for a table of the user's own.
        version: of its preset; 0 for a table of the user's own.
    """

    name: str
    task: Task
    mode: AnswerMode | None
    digest: str
    items: Sequence[Item]
    answers: Sequence[ModelAnswer]
    scored: TaskScores
    rejected: int
    scoring: PresetScoring | None = None
    version: int = 0


@dataclass(frozen=True)
class BenchmarkSummary:
    """A benchmark's entry in ``results.json``, and what suites need of it.

    Attributes:
        entry: as it is written.
        headline: name of the metric that represents the benchmark.
        measured: that metric with its replicates.
    """

    entry: dict[str, Any]
    headline: str
    measured: BootstrapEstimate


def summarise(
    done: ScoredBenchmark, *, group_by: Sequence[str], seed: int, resamples: int, cluster: str = ""
) -> BenchmarkSummary:
    """Metrics with intervals, overall and per group.

    ``macro_accuracy``, the unweighted mean over the values of ``sub_task``, is in addition to the
    question-weighted ``accuracy`` where the benchmark has such a column (MLE-Bench in lmms-eval).

    Args:
        done: the benchmark.
        group_by: columns by whose values metrics are also reported.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        cluster: column whose values are resampled together, the entity in rank experiments, say; the
            preset's or else the image where empty.
    """
    scoring = done.scoring or PresetScoring()
    cluster = cluster or scoring.cluster
    if any(item.withheld for item in done.items):
        done = replace(done, scored=with_abstention(done.items, done.answers, done.scored))
    parts = [item.groups.get("sub_task", "") for item in done.items]
    strata = parts if all(parts) and len(set(parts)) > 1 and "accuracy" in _names(done.scored) else None
    every = range(len(done.items))
    measured = _measured(done, every, seed, resamples, strata, cluster)
    headline = scoring.metric if done.scoring and scoring.metric in measured else next(iter(measured))
    entry: dict[str, Any] = {
        "task": done.task.name,
        "by": done.mode or "predictions",
        **_part(done, every, measured),
        "rejected": done.rejected,
        "headline": headline,
        "detectable_difference": finite(detectable_difference(measured[headline].error)),
        "digest": done.digest,
    }
    if all(answer.options for answer in done.answers) and all(item.choices for item in done.items):
        letters = done.answers[0].options[0] == "A" and done.items[0].choices[0] != "A"
        entry["compared"] = "letters" if letters else "texts"
    if done.version:
        entry["version"] = done.version
    if done.scoring:
        entry["scoring"] = done.scoring.model_dump(mode="json")
    if done.mode == "generation" or done.mode is None:
        entry["abstained"] = sum(abstains(answer.text) for answer in done.answers)
    groups: dict[str, dict[str, Any]] = {}
    for column in group_by:
        values = sorted({item.groups[column] for item in done.items if column in item.groups})
        for value in values:
            rows = [index for index, item in enumerate(done.items) if item.groups.get(column) == value]
            group_metrics = _measured(done, rows, seed, resamples, None, cluster)
            groups.setdefault(column, {})[value] = _part(done, rows, group_metrics)
    entry = {**entry, "groups": groups} if groups else entry
    return BenchmarkSummary(entry, headline, measured[headline])


def _names(scored: TaskScores) -> list[str]:
    return list(scored.metrics(scored.counts.sum(0, keepdims=True)))


def _measured(
    done: ScoredBenchmark,
    rows: Sequence[int],
    seed: int,
    resamples: int,
    strata: Sequence[str] | None,
    cluster: str,
) -> dict[str, BootstrapEstimate]:
    items = [done.items[row] for row in rows]
    keys = [
        (item.groups.get(cluster) if cluster else None) or item.cluster or f"#{row}"
        for row, item in zip(rows, items, strict=True)
    ]
    counts = done.scored.counts[list(rows)]
    return bootstrap_metrics(
        counts, done.scored.metrics, seed=seed, resamples=resamples, clusters=keys, strata=strata
    )


def _part(
    done: ScoredBenchmark, rows: Sequence[int], measured: dict[str, BootstrapEstimate]
) -> dict[str, Any]:
    unparsed = sum(done.scored.unparsed[row] for row in rows)
    return {
        "metrics": metrics_to_dict({name: metric.interval for name, metric in measured.items()}),
        "items": len(rows),
        "unparsed": unparsed,
        "unparsed_rate": unparsed / len(rows),
    }


def summarise_suites(
    groups: Mapping[str, Mapping[str, Sequence[str]]],
    summaries: Mapping[str, BenchmarkSummary],
    full_scores: Mapping[str, float],
) -> dict[str, Any]:
    """Means of suites: overall the unweighted mean over the benchmarks' headline numbers, and by group.

    Args:
        groups: by suite, then by ability group, the names of benchmarks.
        summaries: the benchmarks.
        full_scores: what counts as 1 for a benchmark; 1 where not named.

    Returns:
        By suite ``overall``, ``groups`` and, for rescoring, ``members``.
    """
    return {
        suite: {
            "overall": _mean([name for names in members.values() for name in names], summaries, full_scores),
            "groups": {group: _mean(names, summaries, full_scores) for group, names in members.items()},
            "members": {group: list(names) for group, names in members.items()},
        }
        for suite, members in groups.items()
    }


def _mean(
    names: Sequence[str], summaries: Mapping[str, BenchmarkSummary], full_scores: Mapping[str, float]
) -> dict[str, Any]:
    parts = [
        BootstrapEstimate(
            summaries[name].measured.value / full_scores.get(name, 1.0),
            summaries[name].measured.replicates / full_scores.get(name, 1.0),
        )
        for name in dict.fromkeys(names)
    ]
    interval = mean_of_metrics(parts).interval
    return {**metrics_to_dict({"mean": interval})["mean"], "benchmarks": len(parts)}


def write_results(
    folder: Path, done: Sequence[ScoredBenchmark], entries: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write all three files.

    Args:
        folder: where to.
        done: the benchmarks in order.
        entries: what :func:`summarise` gave for each, by name.
        about: further entries of ``results.json``: the model with its digest, how it was asked.
    """
    samples = (sample(benchmark, index) for benchmark in done for index in range(len(benchmark.items)))
    write_evaluation(folder, {**about, "benchmarks": entries}, samples, _tensors(done))


def sample(done: ScoredBenchmark, index: int) -> dict[str, Any]:
    """One line of ``samples.jsonl``; its keys fit ``--predictions``, so that it can be rescored."""
    item, answer, scored = done.items[index], done.answers[index], done.scored
    return {
        "id": item.id,
        "benchmark": done.name,
        "prompt": answer.prompt,
        "prediction": answer.prediction,
        "parsed": scored.parsed[index],
        "score": finite(scored.scores[index]),
        **item.truth(),
        **{name: values[index] for name, values in scored.extra.items()},
        **({"turns": [turn.prediction for turn in answer.turns]} if answer.turns else {}),
        "groups": dict(item.groups),
        **({"question": item.question} if item.question else {}),
        **({"cluster": item.cluster} if item.cluster else {}),
        **({"image_size": list(item.image_size)} if item.image_size else {}),
        **({"image_tokens": answer.image_tokens} if answer.image_tokens else {}),
        **({"withheld": True} if item.withheld else {}),
    }


def _tensors(done: Sequence[ScoredBenchmark]) -> dict[str, Any]:
    """The tensors of ``scores.safetensors``."""
    tensors: dict[str, Any] = {}
    for benchmark in done:
        tensors[f"{benchmark.name}.score"] = np.array(benchmark.scored.scores, dtype=np.float64)
        if all(answer.loglikelihoods for answer in benchmark.answers):
            values = [value for answer in benchmark.answers for value in answer.loglikelihoods]
            tensors[f"{benchmark.name}.loglikelihood"] = np.array(values, dtype=np.float64)
            tensors[f"{benchmark.name}.options"] = np.array(
                [len(answer.loglikelihoods) for answer in benchmark.answers], dtype=np.int64
            )
    return tensors
