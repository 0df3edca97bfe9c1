"""Checks and reads the inputs of `correlate`: ranks, evaluations, and the frequencies of entities."""

from __future__ import annotations

from collections.abc import Sequence

from priorkit.analysis.prior_accuracy import EntityAccuracy, entity_accuracy, entity_benchmarks
from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.inputs import Input
from priorkit.data.io.rows import column_names
from priorkit.data.number_table import read_number_table
from priorkit.data.results.artifact_graph import entity_rows
from priorkit.data.results.evaluations import read_evaluation, read_results
from priorkit.scoring.representations.rank_summary import RANK_MEASURES


def check_artifact(item: Input) -> None:
    """Check that an input is an artifact.

    Raises:
        InputError: it is not.
    """
    if item.owner is None or item.kind.startswith("part of"):
        raise InputError("expected an artifact made by priorkit", where=item.given)


def check_ranks(item: Input) -> None:
    """Check that scores are ranks with all measures.

    Raises:
        InputError: they are not.
    """
    check_artifact(item)
    if item.owner is not None and item.owner.manifest.step != "rank-e":
        raise InputError(
            f"expected scores made by rank-e, got scores made by {item.owner.manifest.step}", where=item.given
        )
    columns = column_names(item.path / "table.parquet")
    missing = [name for name in ("entity", *RANK_MEASURES) if name not in columns]
    if missing:
        raise InputError(f"the table has no column {missing[0]}", where=item.given)


def check_evaluation(item: Input, requested: Sequence[str]) -> None:
    """Check that an evaluation has the requested benchmarks.

    Raises:
        InputError: it has not.
    """
    check_artifact(item)
    benchmarks = read_results(item.path)
    for name in requested:
        if name not in benchmarks:
            raise InputError(f"no benchmark '{name}' here", where=item.given, hint=nearest(name, benchmarks))


def read_entity_accuracy(item: Input, requested: Sequence[str]) -> tuple[tuple[str, ...], EntityAccuracy]:
    """The benchmarks of an evaluation that count, and its accuracy per entity on them.

    Raises:
        InputError: no item names an entity, or those of a requested benchmark name none.
    """
    evaluation = read_evaluation(item.path)
    try:
        benchmarks = entity_benchmarks(evaluation, requested)
    except InputError as error:
        raise error.at(item.given) from None
    return benchmarks, entity_accuracy(evaluation, benchmarks)


def entity_frequencies(item: Input, column: str) -> dict[str, float]:
    """How often each entity was seen in pretraining, from a table of entities; NaN where the cell is empty.

    Raises:
        InputError: the table cannot be read, lacks the columns, names an entity twice or none, or holds something
            else than numbers.
    """
    table = read_number_table(item.path, item.given)
    rows = entity_rows(table)
    try:
        counts = table.numbers(column, missing=True)
    except InputError as error:
        problems = Problems(InputError)
        problems.extend(error)
        problems.add("another column is named with --frequency-column", where=table.name)
        problems.fail()
    return {entity: float(counts[row]) for entity, row in rows.items()}
