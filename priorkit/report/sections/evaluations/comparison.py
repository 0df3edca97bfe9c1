"""Paired differences between evaluations on the same items, and held-out text before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import LANGUAGE, ScoredItem
from priorkit.report import numbers
from priorkit.report.blocks import Block, Cell, FormattedNumber, Plot, Section, SignedInterval, Table
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.report.shared_items import mean_difference
from priorkit.scoring.statistics.intervals import mcnemar_exact, permutation_test

ALL_PAIRS_UP_TO = 4
"""With more evaluations, each is compared with the first only."""


def differences_section(members: Members) -> Section | None:
    """Differences between evaluations on the items that both answered."""
    overall: list[list[Cell]] = []
    apart: list[list[Cell]] = []
    evaluated = [member for member in members.evaluations() if member.evaluation.countable]
    for first, second in compared_pairs(evaluated):
        paired = paired_items(first, second)
        title = f"{second.label} \N{MINUS SIGN} {first.label}"
        if paired:
            overall.append(_row(title, "", [item for items in paired.values() for item in items], members))
        apart += [_row(title, name, items, members) for name, items in paired.items()]
    if not overall:
        return None
    columns = ["difference", "benchmark", "items", "value", "gained", "lost", "p"]
    note = (
        "Gained: only the first-named model is correct; lost: only the other one. p: exact McNemar test if scores are "
        "0 or 1, otherwise paired permutation test; not corrected for multiple comparisons."
    )
    table = Table(
        "paired-differences",
        "Differences in accuracy on the same items",
        [name for name in columns if name != "benchmark"],
        [[cell for number, cell in enumerate(row) if number != 1] for row in overall],
        note=note,
    )
    by_benchmark = Table(
        "paired-differences-by-benchmark", "By benchmark", columns, apart, note=note, folded=True
    )
    intro = (
        "Models are compared item by item on the same items, which detects smaller differences than their separate "
        "intervals."
    )
    return Section("differences", "Paired differences", intro, [table, by_benchmark], [table])


def compared_pairs(evaluated: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Which evaluations are compared: all with each other, or of more than a few each with the first."""
    if len(evaluated) <= ALL_PAIRS_UP_TO:
        return list(combinations(evaluated, 2))
    return [(evaluated[0], other) for other in evaluated[1:]]


def paired_items(first: Member, second: Member) -> dict[str, list[tuple[ScoredItem, ScoredItem]]]:
    """Both answers to the items that both evaluations have, by benchmark."""
    shared = [name for name in first.evaluation.countable if name in second.evaluation.countable]
    return {name: items for name in shared if (items := _paired(first, second, name))}


def _paired(first: Member, second: Member, benchmark: str) -> list[tuple[ScoredItem, ScoredItem]]:
    other = {sample.id: sample for sample in second.evaluation.by_benchmark[benchmark]}
    return [(s, other[s.id]) for s in first.evaluation.by_benchmark[benchmark] if s.id in other]


def _row(
    title: str, name: str, items: Sequence[tuple[ScoredItem, ScoredItem]], members: Members
) -> list[Cell]:
    first = np.array([one.score for one, _ in items], dtype=np.float64)
    second = np.array([other.score for _, other in items], dtype=np.float64)
    interval = mean_difference([one for one, _ in items], [other for _, other in items], members)
    exact = bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all())
    p = mcnemar_exact(second, first) if exact else permutation_test(second, first, seed=members.seed)
    return [
        title,
        name,
        len(items),
        SignedInterval(interval),
        int((second > first).sum()),
        int((first > second).sum()),
        FormattedNumber(p, numbers.p_value(p)),
    ]


_LANGUAGE_TITLES = {
    "loss": "Loss in nats per token",
    "bits_per_byte": "Bits per byte",
    "perplexity": "Perplexity per token",
    "byte_perplexity": "Perplexity per byte",
    "word_perplexity": "Perplexity per word",
}


def language_section(members: Members) -> Section | None:
    """Held-out text by source, across evaluations."""
    evaluated = [
        member
        for member in members.evaluations()
        if any(name in LANGUAGE for b in member.evaluation.benchmarks.values() for name in b.metrics)
    ]
    if not evaluated:
        return None
    blocks: list[Block] = []
    for metric in LANGUAGE:
        values = {member.label: _by_source(member, metric) for member in evaluated}
        sources = list(dict.fromkeys(source for by_source in values.values() for source in by_source))
        if not sources:
            continue
        rows: list[list[Cell]] = [
            [s, *(values[member.label].get(s) for member in evaluated)] for s in sources
        ]
        plotted = {label: [by_source.get(s) for s in sources] for label, by_source in values.items()}
        title = _LANGUAGE_TITLES[metric]
        if not blocks:
            blocks.append(
                Plot(
                    "held-out-text",
                    f"{title} by source (lower is better)",
                    intervals_by_group(
                        sources,
                        plotted,
                        title.lower(),
                        log="perplexity" in metric,
                        colors=[m.color for m in evaluated],
                    ),
                )
            )
        shown = sum(isinstance(block, Table) for block in blocks)
        blocks.append(
            Table(
                f"held-out-{metric}".replace("_", "-"),
                f"{title} on held-out text (lower is better)",
                ["source", *(member.label for member in evaluated)],
                rows,
                colors=[-1, *(member.color for member in evaluated)],
                folded=shown > 1,
            )
        )
    intro = "Loss of language models on text that they were not trained on, by source."
    return Section(
        "language", "Held-out text", intro, blocks, [b for b in blocks if isinstance(b, Table)][:1]
    )


def _by_source(member: Member, metric: str) -> dict[str, Interval]:
    """The metric by benchmark, or by the group ``source`` where a benchmark has several."""
    parts: dict[str, Mapping[str, Interval]] = {}
    for benchmark in member.evaluation.benchmarks.values():
        parts[benchmark.name] = benchmark.metrics
        parts.update(benchmark.groups.get("source", {}))
    metric_by_source = {name: _language_metric(metrics, metric) for name, metrics in parts.items()}
    return {name: interval for name, interval in metric_by_source.items() if interval is not None}


def _language_metric(metrics: Mapping[str, Interval], name: str) -> Interval | None:
    """A metric; the loss in nats is the logarithm of the perplexity per token."""
    if name == "loss" and name not in metrics and "perplexity" in metrics:
        perplexity = metrics["perplexity"]
        value, low, high = (
            math.log(x) if x > 0 else math.nan for x in (perplexity.value, perplexity.low, perplexity.high)
        )
        return Interval(value, low, high)
    return metrics.get(name)
