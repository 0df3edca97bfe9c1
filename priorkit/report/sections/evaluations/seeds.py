"""Variants that were run with several seeds: means over seeds with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import ACCURACIES
from priorkit.report import numbers
from priorkit.report.blocks import Block, Cell, FormattedNumber, Plot, Section, Table
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.scoring.statistics.intervals import student_mean

EXTRA_METRICS = ("mean_iou",)
"""Metrics shown in addition to a benchmark's primary one."""


def seeds_section(members: Members) -> Section | None:
    """A row per variant: the mean over its seeds with Student's interval, and its ratio to the first variant's."""
    variants = members.repeats()
    if not variants:
        return None
    columns = shared_metrics(variants)
    means = {
        name: [_over_seeds(runs, benchmark, metric) for benchmark, metric in columns]
        for name, runs in variants.items()
    }
    first = next(iter(means))
    rows: list[list[Cell]] = []
    for name, values_by_run in means.items():
        cells: list[Cell] = [name, len(variants[name])]
        for mean, base in zip(values_by_run, means[first], strict=True):
            cells += [mean, _ratio(mean, base)]
        rows.append(cells)
    heads = [f"{benchmark} {metric.replace('_', ' ')}" for benchmark, metric in columns]
    table = Table(
        "seeds",
        "Means over seeds",
        ["variant", "seeds", *(head for name in heads for head in (name, f"ratio to {first}"))],
        rows,
    )
    blocks: list[Block] = []
    places = [index for index, (_, metric) in enumerate(columns) if metric in ACCURACIES]
    if places:
        values = {name: [values_by_run[index] for index in places] for name, values_by_run in means.items()}
        figure = intervals_by_group([columns[index][0] for index in places], values, "accuracy")
        blocks.append(Plot("seeds", "Accuracy, means over seeds with 95 % intervals", figure))
    intro = (
        "Each variant was trained with several seeds. The 95 % interval (Student's) of the mean over seeds reflects "
        "the variance of training, not of the items. The rest of this page shows the first seed of each variant."
    )
    return Section("seeds", "Over several seeds", intro, blocks, [table])


def shared_metrics(variants: Mapping[str, Sequence[Member]]) -> list[tuple[str, str]]:
    """Benchmarks with the metrics that are shown, those that every run has."""
    runs = [member.evaluation.benchmarks for repeated in variants.values() for member in repeated]
    if not runs:
        return []
    return [
        (name, metric)
        for name, benchmark in runs[0].items()
        for metric in dict.fromkeys((benchmark.primary, *EXTRA_METRICS))
        if metric and all(name in run and metric in run[name].metrics for run in runs)
    ]


def _over_seeds(runs: Sequence[Member], benchmark: str, metric: str) -> Interval:
    return student_mean([run.evaluation.benchmarks[benchmark].metrics[metric].value for run in runs])


def _ratio(value: Interval, base: Interval) -> Cell:
    ratio = value.value / base.value if base.value else math.nan
    return None if math.isnan(ratio) else FormattedNumber(ratio, numbers.fixed(ratio))
