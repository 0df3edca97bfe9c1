"""Accuracy: by benchmark, by ability, by size, by prior, for every evaluation side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from priorkit.core.interval import Interval
from priorkit.data.results.artifact_graph import Member, Members
from priorkit.data.results.evaluations import (
    ACCURACIES,
    LANGUAGE,
    RETRIEVAL,
    BenchmarkResult,
    Evaluation,
)
from priorkit.report import numbers
from priorkit.report.blocks import Block, Cell, FormattedNumber, Plot, Section, Table, numbered
from priorkit.report.metric_tables import metric_table
from priorkit.report.plots.accuracy import intervals_by_group
from priorkit.report.sections.evaluations.confusions import confusion_tables
from priorkit.report.sections.priors.ranks import PRIOR_ORDER
from priorkit.report.shared_items import (
    SharedItems,
    by_value,
    chance_level,
    colors_of,
    group_by_shared_items,
    mean_chance,
    mean_of_benchmarks,
    mean_score,
)
from priorkit.scoring.answers.mcq.published import PARSERS, parser_metric

COLUMNS = ("ability", "size", "prior", "in_text", "in_instructions", "in_captions", "needs_image")
"""Groups that get a table, in this order, if items have them."""

TITLES = {
    "size": "size of the object",
    "in_text": "whether the text names the entity",
    "in_instructions": "whether the instructions show the entity",
    "in_captions": "whether the captions show the entity",
    "needs_image": "whether the question needs the image",
}
HEADLINE_COLUMNS = {"needs_image": "needs image: ", "ability": "", "size": "size: ", "prior": "prior: "}
"""Groups shown in the summary, with a prefix for their values."""

SIZES = ("small", "medium", "large")


def question_evaluations(members: Members) -> list[Member]:
    """Evaluations with at least one benchmark that is neither held-out text nor retrieval."""
    return [
        member
        for member in members.evaluations()
        if any(map(asks_questions, member.evaluation.benchmarks.values()))
    ]


def asks_questions(benchmark: BenchmarkResult) -> bool:
    """Whether a benchmark asks questions: it is neither held-out text nor retrieval."""
    return benchmark.primary is not None and benchmark.primary not in (*LANGUAGE, *RETRIEVAL)


def accuracy_section(members: Members) -> Section | None:
    """Accuracy by benchmark and by group."""
    evaluated = question_evaluations(members)
    if not evaluated:
        return None
    blocks: list[Block] = [_by_benchmark(evaluated), *_benchmark_plot(evaluated)]
    shared = group_by_shared_items(evaluated)
    headline: list[Table] = []
    for index, pool in enumerate(shared):
        title = ", ".join(member.label for member in pool.members) if len(shared) > 1 else ""
        headline.append(numbered(_headline(pool, members), index, title))
        for column in COLUMNS:
            blocks += [numbered(block, index, title) for block in _by_group(pool, column, members)]
    blocks += confusion_tables(evaluated, [name for name, _ in _benchmark_names(evaluated)])
    blocks.append(_all_metrics(evaluated))
    intro = (
        "Accuracy with 95 % intervals; unparsed answers count as wrong. Groups use the items that all evaluations "
        "answered, of benchmarks scored by accuracy; intervals resample entities if every item names one, otherwise "
        "items."
    )
    return Section("accuracy", "Accuracy", intro, blocks, headline)


def _by_benchmark(evaluated: Sequence[Member]) -> Table:
    evaluations = [member.evaluation for member in evaluated]
    rows: list[list[Cell]] = []
    for name, primary in _benchmark_names(evaluated):
        present = [e.benchmarks[name] for e in evaluations if name in e.benchmarks]
        for metric in (primary, *_other_parsers(present)):
            row: list[Cell] = [name, _metric_title(metric), present[0].items, _chance_cell(evaluations, name)]
            for evaluation in evaluations:
                benchmark = evaluation.benchmarks.get(name)
                row.append(benchmark.metrics.get(metric) if benchmark else None)
            rows.append(row)
    unparsed = [text for member in evaluated if (text := _unparsed(member))]
    return Table(
        "accuracy-by-benchmark",
        "By benchmark",
        ["benchmark", "metric", "items", "chance", *(member.label for member in evaluated)],
        rows,
        colors=[-1, -1, -1, -1, *(member.color for member in evaluated)],
        note=f"Unparsed answers: {'; '.join(unparsed)}." if unparsed else "",
    )


def _other_parsers(benchmarks: Sequence[BenchmarkResult]) -> list[str]:
    """Accuracies under another parser of written answers than the one in use, such as ``accuracy_careful``."""
    names = [parser_metric(parser) for parser in PARSERS]
    return [name for name in names if any(name in benchmark.metrics for benchmark in benchmarks)]


def _metric_title(metric: str) -> str:
    """A metric in words: ``accuracy (careful parser)`` for ``accuracy_careful``."""
    parsers = {parser_metric(parser): parser for parser in PARSERS}
    return f"accuracy ({parsers[metric]} parser)" if metric in parsers else metric.replace("_", " ")


def _unparsed(member: Member) -> str:
    """Number and share of an evaluation's unparsed answers; empty if there are none."""
    benchmarks = member.evaluation.benchmarks.values()
    count, items = (
        sum(values) for values in ((b.unparsed for b in benchmarks), (b.items for b in benchmarks))
    )
    return f"{member.label}: {count:,} of {items:,} ({100 * count / max(items, 1):.1f} %)" if count else ""


def _benchmark_names(evaluated: Sequence[Member]) -> list[tuple[str, str]]:
    names: dict[str, str] = {}
    for member in evaluated:
        for benchmark in member.evaluation.benchmarks.values():
            if asks_questions(benchmark) and benchmark.primary:
                names.setdefault(benchmark.name, benchmark.primary)
    return list(names.items())


def _chance_cell(evaluations: Sequence[Evaluation], benchmark: str) -> Cell:
    level = chance_level(evaluations, benchmark)
    return None if level is None else FormattedNumber(level, numbers.fixed(level))


def _benchmark_plot(evaluated: Sequence[Member]) -> list[Block]:
    names = [(name, metric) for name, metric in _benchmark_names(evaluated) if metric in ACCURACIES]
    if not names:
        return []
    evaluations = [member.evaluation for member in evaluated]
    values: dict[str, list[Interval | None]] = {
        member.label: [
            benchmark.metrics.get(metric) if (benchmark := member.evaluation.benchmarks.get(name)) else None
            for name, metric in names
        ]
        for member in evaluated
    }
    chance = [chance_level(evaluations, name) for name, _ in names]
    figure = intervals_by_group(
        [name for name, _ in names], values, "accuracy", chance, colors=colors_of(evaluated)
    )
    return [Plot("accuracy-by-benchmark", "Accuracy by benchmark, with 95 % intervals", figure)]


def _headline(pool: SharedItems, members: Members) -> Table:
    rows: list[list[Cell]] = []
    count = len(pool.items)
    title = f"mean of {count} benchmarks" if count > 1 else next(iter(pool.items))
    chance = mean_chance(pool)
    rows.append(
        [
            title,
            sum(map(len, pool.items.values())),
            None if chance is None else FormattedNumber(chance, numbers.fixed(chance)),
            *(mean_of_benchmarks(pool, member, members) for member in pool.members),
        ]
    )
    for column in HEADLINE_COLUMNS:
        groups = _groups(pool, column, members)
        if len(groups) > 1:
            rows += [[f"{HEADLINE_COLUMNS[column]}{value}", *rest, *cells] for value, *rest, cells in groups]
    return Table(
        "accuracy",
        "Accuracy",
        ["group", "items", "chance", *(member.label for member in pool.members)],
        rows,
        colors=[-1, -1, -1, *(member.color for member in pool.members)],
    )


def _groups(
    pool: SharedItems, column: str, members: Members
) -> list[tuple[str, int, FormattedNumber | None, list[Interval | None]]]:
    """A group's value, its number of items, its chance level, and each evaluation's accuracy on it."""
    by_member = [by_value(pool.all_samples(member), column) for member in pool.members]
    values = sorted({value for parts in by_member for value in parts}, key=_reading_order)
    groups: list[tuple[str, int, FormattedNumber | None, list[Interval | None]]] = []
    for value in values:
        parts = [split.get(value, []) for split in by_member]
        largest = max(parts, key=len)
        chances = [chance for sample in largest if (chance := sample.chance) is not None]
        level = math.fsum(chances) / len(chances) if len(chances) == len(largest) else None
        groups.append(
            (
                value,
                len(largest),
                None if level is None else FormattedNumber(level, numbers.fixed(level)),
                [mean_score(part, members) if part else None for part in parts],
            )
        )
    return groups


def _reading_order(value: str) -> tuple[int, str]:
    known = (*PRIOR_ORDER[:1], *PRIOR_ORDER[2:]) if value not in SIZES else SIZES
    return (known.index(value) if value in known else len(known), value)


def _by_group(pool: SharedItems, column: str, members: Members) -> list[Table | Plot]:
    groups = _groups(pool, column, members)
    if len(groups) < 2:
        return []
    title = f"By {TITLES.get(column, column)}"
    rows: list[list[Cell]] = [[value, items, level, *intervals] for value, items, level, intervals in groups]
    name = f"accuracy-by-{column}".replace("_", "-")
    table = Table(
        name,
        title,
        [column.replace("_", " "), "items", "chance", *(member.label for member in pool.members)],
        rows,
        colors=[-1, -1, -1, *(member.color for member in pool.members)],
    )
    if column not in ("ability", "size", "prior"):
        return [table.without_empty()]
    values = {
        member.label: [intervals[number] for *_, intervals in groups]
        for number, member in enumerate(pool.members)
    }
    chance = [None if level is None else level.value for _, _, level, _ in groups]
    figure = intervals_by_group(
        [value for value, *_ in groups], values, "accuracy", chance, colors=colors_of(pool.members)
    )
    return [Plot(name, f"Accuracy {title[0].lower()}{title[1:]}", figure), table.without_empty()]


def _all_metrics(evaluations: Sequence[Member]) -> Table:
    return metric_table(
        "all-metrics",
        "All metrics of all benchmarks",
        evaluations,
        lambda benchmark, _: asks_questions(benchmark),
        folded=True,
    )
