"""Tables of metrics with a row per benchmark and metric, a column per evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from priorkit.data.results.artifact_graph import Member
from priorkit.data.results.evaluations import BenchmarkResult
from priorkit.report.blocks import Cell, Table


def metric_table(
    name: str,
    title: str,
    members: Sequence[Member],
    include: Callable[[BenchmarkResult, str], bool],
    *,
    folded: bool = False,
) -> Table:
    """The metrics of evaluations' benchmarks as they were measured.

    Args:
        name: of the table.
        title: of the table.
        members: the evaluations.
        include: whether a metric of a benchmark gets a row.
        folded: whether the table is folded at first.
    """
    keys = dict.fromkeys(
        (benchmark.name, metric)
        for member in members
        for benchmark in member.evaluation.benchmarks.values()
        for metric in benchmark.metrics
        if include(benchmark, metric)
    )
    rows: list[list[Cell]] = []
    for benchmark_name, metric in keys:
        row: list[Cell] = [benchmark_name, metric.replace("_", " ")]
        for member in members:
            benchmark = member.evaluation.benchmarks.get(benchmark_name)
            row.append(benchmark.metrics.get(metric) if benchmark else None)
        rows.append(row)
    return Table(
        name,
        title,
        ["benchmark", "metric", *(member.label for member in members)],
        rows,
        colors=[-1, -1, *(member.color for member in members)],
        folded=folded,
    )
