"""MLE-Bench: accuracy by how much of the image an object covers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import BenchmarkResult
from priorkit.report.blocks import Block, Cell, Plot, Section, Table, numbered
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.report.shared_items import chance_level, colors_of

_MLE = "sub_task"
"""The column that holds the area bin, as in lmms-eval's schema."""

_BIN = re.compile(r"(\d+)-\d+$")
"""A bin of areas in percent: ``existence_0-30``."""


def is_mle_bench(benchmark: BenchmarkResult) -> bool:
    """Whether the sub-tasks are bins of areas."""
    return any(_BIN.search(value) for value in benchmark.groups.get(_MLE, {}))


def _by_size(value: str) -> tuple[int, str]:
    """Bins from the smallest on."""
    number = _BIN.search(value)
    return int(number[1]) if number else 0, value


def mle_section(members: Members) -> Section | None:
    """MLE-Bench: accuracy by how much of the image the object covers."""
    evaluated = [m for m in members.evaluations() if any(map(is_mle_bench, m.evaluation.benchmarks.values()))]
    if not evaluated:
        return None
    blocks: list[Block] = []
    names = dict.fromkeys(
        b.name for m in evaluated for b in m.evaluation.benchmarks.values() if is_mle_bench(b)
    )
    for index, name in enumerate(names):
        having = [member for member in evaluated if name in member.evaluation.benchmarks]
        blocks += [numbered(block, index) for block in _mle_blocks(name, having)]
    intro = (
        "Naming objects, by the share of the image that they cover. Overall accuracy weights questions equally (the "
        "paper), macro accuracy weights bins equally (lmms-eval)."
    )
    return Section("mle-bench", "MLE-Bench", intro, blocks)


def _mle_blocks(name: str, having: Sequence[Member]) -> list[Table | Plot]:
    benchmarks = [member.evaluation.benchmarks[name] for member in having]
    metric = benchmarks[0].primary or ""
    sizes = dict.fromkeys(value for benchmark in benchmarks for value in benchmark.groups.get(_MLE, {}))
    values = sorted(sizes, key=_by_size)
    by_bin: dict[str, list[Interval | None]] = {
        member.label: [benchmark.groups.get(_MLE, {}).get(value, {}).get(metric) for value in values]
        for member, benchmark in zip(having, benchmarks, strict=True)
    }
    rows: list[list[Cell]] = [
        [value, *(by_bin[member.label][number] for member in having)] for number, value in enumerate(values)
    ]
    metrics = dict.fromkeys(key for benchmark in benchmarks for key in benchmark.metrics)
    rows += [
        [f"overall: {key.replace('_', ' ')}", *(benchmark.metrics.get(key) for benchmark in benchmarks)]
        for key in metrics
    ]
    level = chance_level([member.evaluation for member in having], name)
    return [
        Plot(
            "mle",
            f"{name} by area of the object",
            intervals_by_group(values, by_bin, metric, [level] * len(values), colors=colors_of(having)),
        ),
        Table(
            "mle",
            name,
            ["bin", *(member.label for member in having)],
            rows,
            colors=[-1, *(member.color for member in having)],
        ),
    ]
