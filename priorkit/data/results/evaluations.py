"""Reading evaluations: metrics, items, and which items may be averaged together."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.data.results.evaluation_files import RESULTS, SAMPLES, read_document, read_samples

ACCURACIES = ("accuracy", "acc", "accuracy_at_0.5", "acc_norm")
"""Metrics that are shares of correct answers and so are comparable."""

PRIMARY = (*ACCURACIES, "f1", "cider", "mrr", "recall_at_1", "mean_iou", "bits_per_byte", "perplexity")
"""A benchmark is represented by the first of these that it has."""

RETRIEVAL = ("mrr", "recall_at_1", "recall_at_5", "recall_at_10", "mean_rank", "median_rank")
"""Metrics of finding the right text for an image."""

LANGUAGE = ("loss", "bits_per_byte", "perplexity", "byte_perplexity", "word_perplexity")
"""Metrics of held-out text; lower is better."""


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """One item of a benchmark with the answer that was given.

    Attributes:
        benchmark: the benchmark's name.
        id: the item's id within it.
        score: what the item adds to the mean; None where it was left out of the score.
        groups: column -> value, such as ``ability`` -> ``counting``.
        row: the line of ``samples.jsonl``.
    """

    benchmark: str
    id: str
    score: float | None
    groups: Mapping[str, str]
    row: Mapping[str, Any]

    @property
    def chance(self) -> float | None:
        """The share a blind guess gets right, where the choices are known; None elsewhere."""
        choices = self.row.get("choices")
        if isinstance(choices, list) and choices:
            return 1 / len(choices)
        if isinstance(choices, int) and choices > 0:
            return 1 / choices
        if self.row.get("answer") in ("yes", "no"):
            return 0.5
        lettered = re.findall(r"^\(?([A-Z])[.):] ", str(self.row.get("prompt", "")), re.MULTILINE)
        count = len(lettered)
        in_order = lettered == [chr(ord("A") + index) for index in range(count)]
        return 1 / count if count > 1 and in_order else None


@dataclass(frozen=True, slots=True)
class BenchmarkResult:
    """One benchmark's results.

    Attributes:
        name: its name.
        metrics: metric -> value with interval.
        items: number of items.
        unparsed: answers that could not be read.
        groups: column -> value -> metrics of that part.
    """

    name: str
    metrics: Mapping[str, Interval]
    items: int
    unparsed: int
    groups: Mapping[str, Mapping[str, Mapping[str, Interval]]]

    @property
    def primary(self) -> str | None:
        """The metric that represents the benchmark."""
        return next((name for name in PRIMARY if name in self.metrics), next(iter(self.metrics), None))


@dataclass(frozen=True)
class Evaluation:
    """An evaluation artifact in memory.

    Attributes:
        benchmarks: results by name.
        samples: all items.
        suites: by suite, the mean of each ability group.
    """

    benchmarks: Mapping[str, BenchmarkResult]
    samples: Sequence[ScoredItem]
    suites: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])

    @cached_property
    def by_benchmark(self) -> dict[str, list[ScoredItem]]:
        """The scored items of each benchmark."""
        by_name: dict[str, list[ScoredItem]] = {}
        for sample in self.samples:
            if sample.score is not None:
                by_name.setdefault(sample.benchmark, []).append(sample)
        return by_name

    @cached_property
    def countable(self) -> tuple[str, ...]:
        """Benchmarks whose items' mean score is an accuracy, so that their items may be pooled.

        The reported metric decides, not the name: a grounding item may carry its IoU as score, and a mean
        of IoUs and right answers would mean nothing.
        """
        names: list[str] = []
        for name, samples in self.by_benchmark.items():
            benchmark = self.benchmarks.get(name)
            if benchmark is None:
                continue
            mean = math.fsum(sample.score or 0.0 for sample in samples) / len(samples)
            known = [benchmark.metrics[key].value for key in ACCURACIES if key in benchmark.metrics]
            if any(abs(mean - value) < 1e-6 for value in known):
                names.append(name)
        return tuple(names)

    def chance(self, benchmark: str) -> float | None:
        """The mean share of blind guesses that are right, where it is known for every item."""
        chances = [sample.chance for sample in self.by_benchmark.get(benchmark, [])]
        known = [chance for chance in chances if chance is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(chances) else None


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``results.json`` and ``samples.jsonl``.

    Raises:
        InputError: a file is missing, or not of the form that `evaluate` writes.
    """
    benchmarks = read_results(folder)
    samples = _read_samples(folder)
    unknown = next((sample.benchmark for sample in samples if sample.benchmark not in benchmarks), None)
    if unknown is not None:
        raise InputError(
            f"items of '{unknown}', of which results.json has no results", where=str(folder / "samples.jsonl")
        )
    return Evaluation(benchmarks, samples, _read_suites(folder))


def _read_suites(folder: Path) -> dict[str, dict[str, float]]:
    return {
        suite: {group: _number(part["value"]) for group, part in table["groups"].items()}
        for suite, table in read_document(folder).get("suites", {}).items()
    }


def read_results(folder: Path) -> dict[str, BenchmarkResult]:
    """Read ``results.json``: benchmark name -> results.

    Raises:
        InputError: it is missing or not of the form that `evaluate` writes.
    """
    benchmarks = read_document(folder)["benchmarks"]
    try:
        return {name: _benchmark(name, table) for name, table in benchmarks.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not an evaluation: {error!r}", where=str(folder / RESULTS)) from None


def _benchmark(name: str, table: Mapping[str, Any]) -> BenchmarkResult:
    return BenchmarkResult(
        name=name,
        metrics=_metrics(table["metrics"]),
        items=int(table.get("items", 0)),
        unparsed=int(table.get("unparsed", 0)),
        groups={
            column: {value: _metrics(part["metrics"]) for value, part in values.items()}
            for column, values in table.get("groups", {}).items()
        },
    )


def _metrics(table: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: Interval.from_dict(entry) for name, entry in table.items()}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _read_samples(folder: Path) -> list[ScoredItem]:
    samples: list[ScoredItem] = []
    for number, row in read_samples(folder):
        try:
            score = row["score"]
            samples.append(
                ScoredItem(
                    benchmark=str(row["benchmark"]),
                    id=str(row["id"]),
                    score=None if score is None else float(score),
                    groups={name: _group(value) for name, value in (row.get("groups") or {}).items()},
                    row=row,
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"not an item of an evaluation: {error!r}", where=f"{folder / SAMPLES}:{number}"
            ) from None
    return samples


def _group(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
