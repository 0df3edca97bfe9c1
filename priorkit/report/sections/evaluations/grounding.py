"""Grounding: the IoU curve of every benchmark that asks for boxes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import BenchmarkResult
from priorkit.report.blocks import Block, Cell, Plot, Section, Table, numbered
from priorkit.report.plots.accuracy import iou_curves
from priorkit.report.shared_items import colors_of

_AT = re.compile(r"accuracy_at_(0\.[0-9]+)")


def grounding_section(members: Members) -> Section | None:
    """Accuracy over the IoU threshold, a plot and a table per benchmark that has such a curve."""
    evaluated = members.evaluations()
    names = dict.fromkeys(
        name
        for member in evaluated
        for name, benchmark in member.evaluation.benchmarks.items()
        if len(curve_of(benchmark)) > 1
    )
    blocks: list[Block] = []
    for index, name in enumerate(names):
        having = [member for member in evaluated if name in member.evaluation.benchmarks]
        blocks += [numbered(block, index) for block in _blocks(name, having)]
    if not blocks:
        return None
    intro = (
        "Share of answers whose box reaches an IoU threshold with the true box, with 95 % intervals; an answer without "
        "a well-formed box is wrong at every threshold. Published numbers use 0.5."
    )
    return Section("grounding", "Grounding", intro, blocks)


def curve_of(benchmark: BenchmarkResult) -> dict[float, Interval]:
    """Accuracy by IoU threshold, ascending; at most one threshold where there is no curve."""
    points = {
        float(match[1]): interval
        for name, interval in benchmark.metrics.items()
        if (match := _AT.fullmatch(name))
    }
    return dict(sorted(points.items()))


def _blocks(name: str, having: Sequence[Member]) -> list[Plot | Table]:
    curves: Mapping[str, dict[float, Interval]] = {
        member.label: curve_of(member.evaluation.benchmarks[name]) for member in having
    }
    thresholds = sorted({threshold for curve in curves.values() for threshold in curve})
    rows: list[list[Cell]] = [
        [f"IoU at least {threshold:g}", *(curve.get(threshold) for curve in curves.values())]
        for threshold in thresholds
    ]
    means = [member.evaluation.benchmarks[name].metrics.get("mean_iou") for member in having]
    rows.append(["mean IoU", *means])
    return [
        Plot("iou-curve", f"{name}: accuracy over the IoU threshold", iou_curves(curves, colors_of(having))),
        Table(
            "iou-curve",
            f"{name} by IoU threshold",
            ["boxes with", *(member.label for member in having)],
            rows,
            colors=[-1, *(member.color for member in having)],
            folded=True,
        ),
    ]
