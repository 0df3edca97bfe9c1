"""Confusions: the most frequent wrong answers, on benchmarks whose options are class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from priorkit.data.results.artifact_graph import Member
from priorkit.data.results.evaluations import ScoredItem
from priorkit.report.blocks import Cell, Table, numbered

MOST = 15
"""Pairs shown per benchmark."""

UNPARSED = "(unparsed)"
"""Label of answers that could not be parsed."""

_Pair = tuple[str, str]


def confusion_tables(evaluated: Sequence[Member], names: Sequence[str]) -> list[Table]:
    """A table per benchmark: the most frequent wrong pairs of true and parsed answer, with their counts.

    Only benchmarks whose option texts are offered twice or more on average: class names (naming, existence,
    counting), not sentences written for one question.

    Args:
        evaluated: evaluations.
        names: benchmarks.
    """
    tables: list[Table] = []
    for name in names:
        having = [member for member in evaluated if name in member.evaluation.by_benchmark]
        if table := _confusions(name, having):
            tables.append(numbered(table, len(tables)))
    return tables


def _confusions(name: str, having: Sequence[Member]) -> Table | None:
    samples = [
        [sample for sample in member.evaluation.by_benchmark[name] if _has_options(sample)]
        for member in having
    ]
    largest = max(samples, key=len, default=[])
    offered: Counter[_Pair] = Counter()
    texts: Counter[str] = Counter()
    for counts in largest:
        texts.update(counts.row["choices"])
        truth = counts.row["choices"][counts.row["answer"]]
        offered.update((truth, option) for option in {*counts.row["choices"], UNPARSED})
    if not texts or 2 * len(texts) > texts.total():
        return None
    made = [Counter(_wrong(items)) for items in samples]
    total: Counter[_Pair] = sum(made, Counter())
    top = sorted(total, key=lambda pair: (-total[pair], pair))[:MOST]
    if not top:
        return None
    rows: list[list[Cell]] = [[*pair, offered[pair], *(counts[pair] for counts in made)] for pair in top]
    wrong = "; ".join(
        f"{member.label}: {confusions.total():,} of {len(items):,}"
        for member, confusions, items in zip(having, made, samples, strict=True)
    )
    shown = f"The {len(top)} most frequent of {len(total):,} pairs. " if len(total) > len(top) else ""
    return Table(
        "confusions",
        f"{name}: most frequent confusions",
        ["true", "answered", "offered", *(member.label for member in having)],
        rows,
        colors=[-1, -1, -1, *(member.color for member in having)],
        note=f"{shown}Offered: questions with that truth and that option. Wrong in total: {wrong}.",
    )


def _has_options(sample: ScoredItem) -> bool:
    """Whether a sample holds options as text, the number of the right one, and the number read or none."""
    choices, answer, parsed = (sample.row.get(key) for key in ("choices", "answer", "parsed"))
    if (
        not isinstance(choices, list)
        or len(choices) < 2
        or not all(isinstance(choice, str) for choice in choices)
    ):
        return False
    return _is_place(answer, len(choices)) and (parsed is None or _is_place(parsed, len(choices)))


def _is_place(value: object, count: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count


def _wrong(samples: Sequence[ScoredItem]) -> Iterator[_Pair]:
    """Truth and read answer of every wrong one."""
    for sample in samples:
        choices, answer, parsed = (sample.row[key] for key in ("choices", "answer", "parsed"))
        if parsed != answer:
            yield choices[answer], UNPARSED if parsed is None else choices[parsed]
