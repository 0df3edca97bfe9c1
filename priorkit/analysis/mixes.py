"""Mixes that were tried, with their scores: from a table, or from evaluations and the corpora behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.pretraining_data import pretraining_scale, pretraining_shares
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.data.number_table import NumberTable, check_columns, is_empty, read_number_table
from priorkit.data.results.evaluations import ACCURACIES, LANGUAGE, read_results

Floats = NDArray[np.float64]
Goal = Literal["auto", "maximise", "minimise"]

LOWER_IS_BETTER = (*LANGUAGE, "ppl", "rank", "overall_rank", "error")
"""Scores of which lower is better, unless --goal says otherwise."""

TOLERANCE = 0.01
"""Tolerance of the sum of shares from 1; printed figures are rounded."""


@dataclass(frozen=True)
class MixSelection:
    """The components of mixes and their score, as the user named them.

    Attributes:
        shares: components; if empty, all sources of the corpora.
        remainder: name of an additional component: 1 minus the sum of the shares.
        score: columns, or ``BENCHMARK`` or ``BENCHMARK.METRIC``; several are averaged.
        goal: whether higher is better; ``auto``: by the score's name.
        scale: whether model sizes and tokens are read too.
        parameters_column, tokens_column: their columns in a table; one of them may be missing there.
    """

    shares: tuple[str, ...] = ()
    remainder: str | None = None
    score: tuple[str, ...] = ()
    goal: Goal = "auto"
    scale: bool = False
    parameters_column: str = "parameters"
    tokens_column: str = "tokens"


@dataclass(frozen=True)
class ScoredMixes:
    """The mixes that were tried, with their scores.

    Attributes:
        names: names of the mixes.
        components: names of the shares.
        shares: float64 ``[mixes, components]``, rows adding up to 1.
        scores: float64 ``[mixes]``.
        score: name of the score.
        lower_is_better: whether lower scores are better.
        parameters: of the models, float64 ``[mixes]``; None where not read.
        tokens: that they were trained on, likewise.
    """

    names: list[str]
    components: list[str]
    shares: Floats
    scores: Floats
    score: str
    lower_is_better: bool
    parameters: Floats | None = None
    tokens: Floats | None = None


def mixes_from_table(item: Input, selection: MixSelection) -> ScoredMixes:
    """The mixes in a table: a row each, named by a column ``mix``, ``name`` or ``id`` if present.

    Raises:
        UsageError: columns are not named, missing, or named twice.
        InputError: a cell is not a number, or shares do not add up to 1.
    """
    table = read_number_table(item.path, item.given)
    problems = Problems(UsageError)
    for flag, names in (("--score", selection.score), ("--shares", selection.shares)):
        if not names:
            problems.add(
                f"{flag} is missing (columns of the table)",
                hint=f"the columns are {', '.join(table.columns)}",
            )
        check_columns(table, flag, names, problems)
        for name, count in Counter(names).items():
            if count > 1:
                problems.add(f"'{name}' is given {count} times", where=flag)
    problems.raise_if_any()
    wrong = Problems(InputError)
    numbers: dict[str, Floats] = {}
    for name in (*selection.shares, *selection.score):
        with wrong.collecting():
            numbers[name] = table.numbers(name)
    wrong.raise_if_any()
    shares = np.stack([numbers[name] for name in selection.shares], axis=1)
    if np.median(shares.sum(1)) > 1.5:  # printed in per cent
        shares = shares / 100
    scores = np.mean([numbers[name] for name in selection.score], axis=0)
    label = next((name for name in ("mix", "name", "id") if name in table.columns), "")
    rows = range(len(scores))
    names = [
        str(table.columns[label][row]) if label and not is_empty(table.columns[label][row]) else str(row + 1)
        for row in rows
    ]
    places = [table.place(row) for row in rows]
    mixes = _checked_mixes(selection, names, places, list(selection.shares), shares, scores, selection.score)
    return replace(mixes, **_table_scales(table, selection)) if selection.scale else mixes


def _table_scales(table: NumberTable, selection: MixSelection) -> dict[str, Floats]:
    """Model sizes and tokens of a table's rows, those of them that it has.

    Raises:
        UsageError: it has neither column.
        InputError: a cell is no positive number.
    """
    columns = {"parameters": selection.parameters_column, "tokens": selection.tokens_column}
    found = {name: column for name, column in columns.items() if column in table.columns}
    if not found:
        raise UsageError(
            f"the table has neither '{columns['parameters']}' nor '{columns['tokens']}'",
            where="--scale",
            hint=f"name them with --parameters-column and --tokens-column; the columns are {', '.join(table.columns)}",
        )
    problems = Problems(InputError)
    scales: dict[str, Floats] = {}
    for name, column in found.items():
        with problems.collecting():
            scales[name] = table.numbers(column)
            for row in np.flatnonzero(scales[name] <= 0):
                problems.add(
                    f"expected a number above 0, got {scales[name][row]:g}",
                    where=table.place(int(row), column),
                )
    problems.raise_if_any()
    return scales


def mixes_from_evaluations(items: Mapping[str, Input], selection: MixSelection) -> ScoredMixes:
    """The mixes that the models of evaluations were pretrained on.

    Raises:
        InputError: a score or a corpus is missing, or shares do not add up to 1; all problems at once.
    """
    problems = Problems(InputError)
    read: list[dict[str, float]] = []
    scales: list[tuple[float, float]] = []
    scores: list[float] = []
    chosen = selection.score
    for item in items.values():
        try:
            if item.owner is None or item.kind != "evaluation":
                raise InputError("expected an evaluation made by priorkit", where=item.given)
            known, full_names = _scores_of(item)
            chosen = chosen or _accuracies(item)
            for name in chosen:
                if name not in known and name not in full_names:
                    raise InputError(f"no score '{name}'", where=item.given, hint=nearest(name, known))
            chosen = tuple(full_names.get(name, name) for name in chosen)
            score = float(np.mean([known[name] for name in chosen]))
            if not np.isfinite(score):
                raise InputError(f"no finite value of {', '.join(chosen)}", where=item.given)
            scores.append(score)
            read.append(pretraining_shares(item.owner, selection.shares))
            if selection.scale:
                scales.append(pretraining_scale(item.owner))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    components = list(selection.shares or dict.fromkeys(name for row in read for name in row))
    shares = np.array([[row.get(name, 0.0) for name in components] for row in read])
    names = list(items)
    places = [f"mix {name}" for name in names]
    mixes = _checked_mixes(selection, names, places, components, shares, np.array(scores), chosen)
    if not selection.scale:
        return mixes
    parameters, tokens = np.array(scales, dtype=np.float64).T
    return replace(mixes, parameters=parameters, tokens=tokens)


def _scores_of(item: Input) -> tuple[dict[str, float], dict[str, str]]:
    """All scores of an evaluation by ``BENCHMARK.METRIC``; each benchmark's name -> its primary metric's."""
    scores: dict[str, float] = {}
    full_names: dict[str, str] = {}
    for name, benchmark in read_results(item.path).items():
        scores |= {f"{name}.{metric}": interval.value for metric, interval in benchmark.metrics.items()}
        if benchmark.primary is not None:
            full_names[name] = f"{name}.{benchmark.primary}"
    return scores, full_names


def _accuracies(item: Input) -> tuple[str, ...]:
    """The default scores: each benchmark's accuracy."""
    primaries = {name: benchmark.primary for name, benchmark in read_results(item.path).items()}
    chosen = tuple(f"{name}.{metric}" for name, metric in primaries.items() if metric in ACCURACIES)
    if not chosen:
        raise InputError(
            "no benchmark here has an accuracy", where=item.given, hint="name the score with --score"
        )
    return chosen


def _checked_mixes(
    selection: MixSelection,
    names: list[str],
    places: list[str],
    components: list[str],
    shares: Floats,
    scores: Floats,
    chosen: tuple[str, ...],
) -> ScoredMixes:
    """Add the remainder, check that shares add up to 1, and determine whether lower is better."""
    problems = Problems(InputError)
    if selection.remainder is not None:
        if selection.remainder in components:
            raise UsageError(f"'{selection.remainder}' is already a share", where="--remainder")
        components = [*components, selection.remainder]
        shares = np.concatenate([shares, 1 - shares.sum(1, keepdims=True)], axis=1)
    for place, row in zip(places, shares, strict=True):
        if row.min() < -1e-9:
            name = components[int(row.argmin())]
            problems.add(f"the share of '{name}' is negative ({row.min():.3g})", where=place)
        elif abs(row.sum() - 1) > TOLERANCE:
            problems.add(
                f"the shares add up to {row.sum():.3g}",
                where=place,
                hint="name all components with --shares, or what is left with --remainder",
            )
    problems.raise_if_any()
    if len(components) < 2:
        raise UsageError(
            "a mix has at least two components",
            where="--shares",
            hint="name further ones, or what is left with --remainder",
        )
    metrics = [name.rpartition(".")[2] for name in chosen]
    lower = [
        metric in LOWER_IS_BETTER or name in LOWER_IS_BETTER
        for metric, name in zip(metrics, chosen, strict=True)
    ]
    if selection.goal == "auto" and any(lower) and not all(lower):
        raise UsageError(
            f"higher is better for some of {', '.join(chosen)}, lower for others",
            where="--score",
            hint="give --goal",
        )
    lower_is_better = selection.goal == "minimise" or (selection.goal == "auto" and all(lower))
    score = chosen[0] if len(chosen) == 1 else f"mean of {', '.join(chosen)}"
    return ScoredMixes(
        names, components, shares / shares.sum(1, keepdims=True), scores, score, lower_is_better
    )
