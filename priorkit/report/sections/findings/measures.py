"""Figures of evaluations that are not accuracies: held-out text, retrieval, captions, overlap of boxes."""

from __future__ import annotations

from priorkit.data.results.artifact_graph import Members
from priorkit.data.results.evaluations import LANGUAGE, RETRIEVAL
from priorkit.report import numbers
from priorkit.report.blocks import Finding
from priorkit.report.sections.findings.wording import known, listed


def measures_finding(members: Members) -> Finding | None:
    """The metric that represents each benchmark of evaluations without accuracies."""
    texts: list[str] = []
    anchor = "accuracy"
    for member in members.evaluations():
        if member.evaluation.countable:
            continue
        for benchmark in member.evaluation.benchmarks.values():
            metric = benchmark.primary
            if metric is None or not known(benchmark.metrics[metric]):
                continue
            if not texts:
                anchor = (
                    "language" if metric in LANGUAGE else "off-domain" if metric in RETRIEVAL else "accuracy"
                )
            value = numbers.with_interval(benchmark.metrics[metric])
            better = ", lower is better" if metric in (*LANGUAGE, "mean_rank", "median_rank") else ""
            words = metric.replace("_", " ")
            texts.append(
                f"{member.label} has a {words} of {value} on {benchmark.name} ({benchmark.items:,} items{better})"
            )
    return Finding(f"{listed(texts)}.", anchor) if texts else None
