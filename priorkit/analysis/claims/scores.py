"""From evaluations to arrays: the items that a measure selects, by unit, the same for all arms and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.claims.arms import Arms
from priorkit.analysis.claims.base import Floats, Measure, Term, UnitScores
from priorkit.core.errors import InputError, Problems, nearest
from priorkit.data.number_table import NumberTable
from priorkit.data.results.artifact_graph import Member, entity_rows
from priorkit.data.results.evaluations import ScoredItem
from priorkit.scoring.answers.boxes import accuracy_at

_TRUTHS = ("choices", "answer", "answers", "references", "box")
_NAMED = 3
"""How many ids or columns a message names."""


@dataclass(frozen=True)
class _Chosen:
    """An item that counts for a term: its id (none for a row of a table), its unit, its cell, and what it adds."""

    id: str
    unit: tuple[str, str]
    cell: tuple[str, int]
    value: float


class ScoreReader:
    """Reads the scores of measures, keeping what several of them need.

    Args:
        entities: the table of entities, for correlations; None where there is none.
    """

    def __init__(self, entities: NumberTable | None) -> None:
        self._entities = entities
        self._skipped: dict[str, int] = {}
        self._items: dict[tuple[str, str], dict[str, ScoredItem]] = {}

    def read(self, measure: Measure, arms: Arms) -> UnitScores:
        """The scores of a measure.

        Raises:
            InputError: a benchmark, a column or a value is missing, arms have different items, or nothing is
                selected; all problems at once.
        """
        terms = measure.terms()
        self._skipped.clear()
        self._check_items(terms, arms)
        edges = self._edges(measure, terms, arms)
        chosen = [[self._choose(term, arms, seed, measure, edges) for term in terms] for seed in arms.seeds]
        scores = _arrays(measure, terms, arms.seeds, chosen)
        skipped = [f"{count} answers without '{value}' left out" for value, count in self._skipped.items()]
        scores = replace(scores, notes=[*scores.notes, *skipped])
        return _only_complete(scores, len(terms) + 2) if measure.needs_all_terms else scores

    def items_of(self, member: Member, benchmark: str) -> dict[str, ScoredItem]:
        """The items of a benchmark by id.

        Raises:
            InputError: the evaluation lacks the benchmark.
        """
        key = (member.label, benchmark)
        if key not in self._items:
            evaluation = member.evaluation
            if benchmark not in evaluation.benchmarks:
                raise InputError(
                    f"'{member.label}' was not evaluated on '{benchmark}'",
                    hint=nearest(benchmark, evaluation.benchmarks),
                )
            self._items[key] = {item.id: item for item in evaluation.samples if item.benchmark == benchmark}
        return self._items[key]

    def _check_items(self, terms: Sequence[Term], arms: Arms) -> None:
        """All arms and seeds must have answered the same items of a benchmark."""
        problems = Problems(InputError)
        first: dict[str, tuple[Member, dict[str, ScoredItem]]] = {}
        checked: set[tuple[str, str]] = set()
        for term in terms:
            if term.source != "evaluation":
                continue
            for benchmark in term.benchmarks:
                for seed in arms.seeds:
                    member = arms.of(term.label, seed)
                    if (member.label, benchmark) in checked:
                        continue
                    checked.add((member.label, benchmark))
                    with problems.collecting():
                        items = self.items_of(member, benchmark)
                        reference, expected = first.setdefault(benchmark, (member, items))
                        _check_same(benchmark, reference, expected, member, items)
        problems.raise_if_any()

    def _edges(self, measure: Measure, terms: Sequence[Term], arms: Arms) -> dict[str, Floats]:
        """Inner edges of the bins of each benchmark, at quantiles of the items of all terms."""
        if not measure.balance:
            return {}
        by_benchmark: dict[str, dict[str, float]] = {}
        for term in terms:
            for benchmark in term.benchmarks:
                items = self._selected(term, arms.of(term.label, arms.seeds[0]), benchmark)
                values = by_benchmark.setdefault(benchmark, {})
                values.update({item.id: _number(item, measure.balance) for item in items})
        quantiles = np.arange(1, measure.bins) / measure.bins
        return {
            benchmark: np.unique(np.quantile(list(values.values()), quantiles))
            for benchmark, values in by_benchmark.items()
        }

    def _selected(self, term: Term, member: Member, benchmark: str) -> list[ScoredItem]:
        items = list(self.items_of(member, benchmark).values())
        for column, wanted in term.where.items():
            known = {_cell(item, column) for item in items} - {None}
            if not known:
                columns = sorted({name for item in items[:50] for name in (*item.groups, *item.row)})
                raise InputError(
                    f"items of '{benchmark}' have no column '{column}' ({member.label})",
                    hint=nearest(column, columns),
                )
            absent = [value for value in wanted if value not in known]
            if absent:
                raise InputError(
                    f"no item of '{benchmark}' has {column} = {absent[0]} ({member.label})",
                    hint=nearest(absent[0], sorted(value for value in known if value is not None)),
                )
            items = [item for item in items if _cell(item, column) in wanted]
        if not items:
            raise InputError(f"no item of '{benchmark}' is selected ({member.label}: {dict(term.where)})")
        return items

    def _choose(
        self, term: Term, arms: Arms, seed: str, measure: Measure, edges: Mapping[str, Floats]
    ) -> list[_Chosen]:
        if term.source == "entities":
            return self._of_entities(term)
        member = arms.of(term.label, seed)
        if term.source == "ranks":
            return _of_ranks(term, member)
        read = _value_reader(term.value)
        chosen: list[_Chosen] = []
        for benchmark in term.benchmarks:
            for item in self._selected(term, member, benchmark):
                number = read(item)
                if number is None:
                    self._skipped[term.value] = self._skipped.get(term.value, 0) + 1
                    continue
                place = int(np.searchsorted(edges[benchmark], _number(item, measure.balance))) if edges else 0
                chosen.append(_Chosen(item.id, _unit(item, measure.unit), (benchmark, place), number))
        if not chosen:
            raise InputError(f"no item of '{member.label}' has the value '{term.value}'")
        return chosen

    def _of_entities(self, term: Term) -> list[_Chosen]:
        table = self._entities
        if table is None:
            raise InputError(
                f"the column '{term.column}' of entities is needed, and no table of entities is known",
                hint="give --entities FILE, or the world as an artifact",
            )
        cells = table.columns.get(term.column, [])
        # Whether something is so counts as 1 and 0.
        yes_no = bool(cells) and all(isinstance(cell, bool) for cell in cells)
        numbers = np.array(cells, dtype=np.float64) if yes_no else table.numbers(term.column, missing=True)
        return _of_column({name: float(numbers[row]) for name, row in entity_rows(table).items()})


def _check_same(
    benchmark: str,
    first: Member,
    expected: Mapping[str, ScoredItem],
    member: Member,
    items: Mapping[str, ScoredItem],
) -> None:
    if items.keys() != expected.keys():
        apart = [key for key in (*expected, *items) if (key in items) != (key in expected)]
        raise InputError(
            f"'{first.label}' and '{member.label}' have different items of '{benchmark}': {len(expected)} and {len(items)}, "
            f"{len(apart)} in only one of them ({', '.join(apart[:_NAMED])}{', ...' if len(apart) > _NAMED else ''})",
            hint="evaluate all arms and seeds on the same file, with the same --limit",
        )
    for key, item in items.items():
        other = expected[key]
        if any(item.row.get(name) != other.row.get(name) for name in _TRUTHS):
            raise InputError(
                f"item {key} of '{benchmark}' has another truth in '{member.label}' than in '{first.label}'",
                hint="evaluate all arms and seeds on the same version of the benchmark",
            )


def _cell(item: ScoredItem, column: str) -> str | None:
    """The value of a column as a text, None where the item has none."""
    if column in item.groups:
        return item.groups[column] or None
    value = item.row.get(column)
    if value is None:
        return None
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _number(item: ScoredItem, column: str) -> float:
    try:
        return float(_cell(item, column) or "")
    except ValueError:
        raise InputError(
            f"item {item.id} of '{item.benchmark}' has no number in '{column}', got {_cell(item, column)!r}",
            hint=f"evaluate with --group-by {column}, where the benchmark has such a column",
        ) from None


def _unit(item: ScoredItem, column: str) -> tuple[str, str]:
    """What is resampled together: a stratum and a key within it."""
    if not column:
        return item.benchmark, str(item.row.get("cluster") or f"#{item.id}")
    value = _cell(item, column)
    if value is None:
        raise InputError(
            f"item {item.id} of '{item.benchmark}' has no '{column}', by which items are resampled"
        )
    return "", value


def _value_reader(value: str) -> Callable[[ScoredItem], float | None]:
    """Reads what is averaged from an item; None where it has no such value."""
    if value == "score":
        return lambda item: item.score
    if value == "unparsed":
        return lambda item: float(item.row.get("parsed") is None)
    if value == "yes":
        return lambda item: float(item.row.get("parsed") == "yes")
    if value == "iou":
        return lambda item: None if item.row.get("iou") is None else float(item.row["iou"])
    threshold = float(value.removeprefix("accuracy_at_"))
    return lambda item: None if item.row.get("iou") is None else accuracy_at([item.row["iou"]], threshold)


def _of_ranks(term: Term, member: Member) -> list[_Chosen]:
    table = member.table
    if term.column not in table:
        raise InputError(
            f"the ranks '{member.label}' have no column '{term.column}'", hint=nearest(term.column, table)
        )
    try:
        numbers = [math.nan if value is None else float(value) for value in table[term.column]]
    except (TypeError, ValueError):
        raise InputError(
            f"the column '{term.column}' of the ranks '{member.label}' holds no numbers"
        ) from None
    return _of_column(dict(zip(map(str, table["entity"]), numbers, strict=True)))


def _of_column(values: Mapping[str, float]) -> list[_Chosen]:
    return [
        _Chosen("", ("", name), ("", 0), number) for name, number in values.items() if not math.isnan(number)
    ]


def _arrays(
    measure: Measure,
    terms: Sequence[Term],
    seeds: Sequence[str],
    chosen: Sequence[Sequence[Sequence[_Chosen]]],
) -> UnitScores:
    """Sums and counts by unit; with ``chosen[seed][term]`` the items."""
    every = [item for by_term in chosen for items in by_term for item in items]
    units = _numbered(item.unit for item in every)
    cells = _numbered(item.cell for item in every)
    shape = (len(seeds), len(terms), len(cells), len(units))
    sums, counts = np.zeros(shape), np.zeros(shape)
    for seed, by_term in enumerate(chosen):
        for number, items in enumerate(by_term):
            places = np.array([(cells[item.cell], units[item.unit]) for item in items]).T
            np.add.at(sums[seed, number], (places[0], places[1]), [item.value for item in items])
            np.add.at(counts[seed, number], (places[0], places[1]), 1.0)
    distinct = {(item.cell, item.id) for item in every if item.id}
    sizes = np.array([sum(cell == other for other, _ in distinct) for cell in cells])
    weights, notes = _cell_weights(counts.sum(3), np.maximum(sizes, 1), list(cells), measure)
    strata = _numbered(stratum for stratum, _ in units)
    return UnitScores(
        seeds, terms, sums, counts, weights, np.array([strata[stratum] for stratum, _ in units]), len(distinct),
        measure.unit or "image", notes,
    )  # fmt: skip


def _only_complete(scores: UnitScores, least: int) -> UnitScores:
    """Only the units that all terms have."""
    complete = (scores.counts.sum(2) > 0).all((0, 1))
    kept, missing = int(complete.sum()), int((~complete).sum())
    if kept < least:
        raise InputError(
            f"only {kept} of {len(complete)} have all of {', '.join(term.title for term in scores.terms)}; {least} are needed",
            hint=f"do they spell '{scores.unit}' alike?",
        )
    notes = [*scores.notes, *([f"{missing} left out: not in all of the variables"] if missing else [])]
    return replace(
        scores,
        sums=scores.sums[..., complete],
        counts=scores.counts[..., complete],
        strata=scores.strata[complete],
        notes=notes,
    )


def _numbered(keys: Iterable[Any]) -> dict[Any, int]:
    return {key: number for number, key in enumerate(dict.fromkeys(keys))}


def _cell_weights(
    present: Floats, sizes: NDArray[np.int64], cells: Sequence[tuple[str, int]], measure: Measure
) -> tuple[Floats, list[str]]:
    """Weights of benchmarks and bins for each term, ``[terms, cells]``, and what could not be compared.

    Benchmarks count equally. The bins of one count by their number of items, if all terms have items in them: direct
    standardization, on what the terms have in common.

    Args:
        present: float64 ``[seeds, terms, cells]``, items.
        sizes: int64 ``[cells]``, different items of all terms.
        cells: benchmark and bin of each cell.
        measure: names the column of the bins.
    """
    weights = np.zeros(present.shape[1:])
    notes: list[str] = []
    names = np.array([benchmark for benchmark, _ in cells])
    for benchmark in dict.fromkeys(names.tolist()):
        mine = names == benchmark
        using = present[0][:, mine].sum(1) > 0
        shared = mine & (present[:, using] > 0).all((0, 1))
        if not shared.any():
            raise InputError(
                f"no bin of '{measure.balance}' of '{benchmark}' has items of all terms",
                hint="use fewer bins",
            )
        weights[using] += np.where(shared, sizes, 0) / sizes[shared].sum()
        if shared.sum() < mine.sum():
            left_out = int(sizes[mine & ~shared].sum())
            notes.append(
                f"{left_out} items of {benchmark} left out: none to compare with at that {measure.balance}"
            )
    return weights / weights.sum(1, keepdims=True), notes
