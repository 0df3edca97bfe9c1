"""Mixes that were tried, with their scores: read from a table, or from evaluations and what is behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.analysis.mix_table import read_mix_table
from priorkit.analysis.pretraining_data import pretraining_shares
from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.data.results.evaluations import ACCURACIES, LANGUAGE, read_results

Floats = NDArray[np.float64]
Goal = Literal["auto", "maximise", "minimise"]

LOWER_IS_BETTER = (*LANGUAGE, "ppl", "rank", "overall_rank", "error")
"""Names of scores of which less is better, unless --goal says otherwise."""

TOLERANCE = 0.01
"""How far the shares of a mix may be from adding up to one; printed figures are rounded."""


@dataclass(frozen=True)
class MixSelection:
    """What a mix consists of and what it is judged by, as the user named it.

    Attributes:
        shares: components; all sources of the corpora where empty.
        remainder: name of a further component that is what the shares leave of 1.
        score: columns, or ``BENCHMARK`` or ``BENCHMARK.METRIC``; several are averaged.
        goal: whether more is better; ``auto`` by the score's name.
    """

    shares: tuple[str, ...] = ()
    remainder: str | None = None
    score: tuple[str, ...] = ()
    goal: Goal = "auto"


@dataclass(frozen=True)
class ScoredMixes:
    """The mixes that were tried.

    Attributes:
        names: of the mixes.
        components: of the shares.
        shares: float64 ``[mixes, components]``, rows adding up to 1.
        scores: float64 ``[mixes]``.
        score: what the scores are.
        minimise: whether less is better.
    """

    names: list[str]
    components: list[str]
    shares: Floats
    scores: Floats
    score: str
    minimise: bool


def mixes_from_table(item: Input, wanted: MixSelection) -> ScoredMixes:
    """The mixes in a table: a row each, named by a column ``mix``, ``name`` or ``id`` where there is one.

    Raises:
        UsageError: columns are not named, or not there.
        InputError: a cell is no number, or shares do not add up.
    """
    columns = read_mix_table(item.path)
    problems = Problems(UsageError)
    if not wanted.score:
        problems.add(
            "--score is missing (a column of the table)", hint=f"the columns are {', '.join(columns)}"
        )
    if not wanted.shares:
        problems.add(
            "--shares is missing (columns of the table)", hint=f"the columns are {', '.join(columns)}"
        )
    for flag, names in (("--score", wanted.score), ("--shares", wanted.shares)):
        for name in names:
            if name not in columns:
                problems.add(f"no column '{name}'", where=f"{flag} {item.given}", hint=nearest(name, columns))
    problems.raise_if_any()
    numbers = {name: _numbers(columns[name], name, item) for name in (*wanted.shares, *wanted.score)}
    shares = np.stack([numbers[name] for name in wanted.shares], axis=1)
    if shares.sum(1).max() > 1.5:  # printed in per cent
        shares = shares / 100
    scores = np.mean([numbers[name] for name in wanted.score], axis=0)
    label = next((name for name in ("mix", "name", "id") if name in columns), "")
    names = [str(v) for v in columns[label]] if label else [str(number) for number in range(len(scores))]
    return _checked_mixes(wanted, names, list(wanted.shares), shares, scores, wanted.score)


def _numbers(values: list[Any], name: str, item: Input) -> Floats:
    try:
        found = np.array([float(value) for value in values])
        if not np.isfinite(found).all():
            raise ValueError("a value is missing or not finite")
    except (TypeError, ValueError) as error:
        raise InputError(f"the column '{name}' holds no numbers: {error}", where=item.given) from None
    return found


def mixes_from_evaluations(items: Mapping[str, Input], wanted: MixSelection) -> ScoredMixes:
    """The mixes that the models of evaluations have read.

    Raises:
        InputError: a score or a corpus is missing, or shares do not add up; all problems at once.
    """
    problems = Problems(InputError)
    read: list[dict[str, float]] = []
    scores: list[float] = []
    chosen = wanted.score
    for item in items.values():
        try:
            if item.owner is None or item.kind != "evaluation":
                raise InputError("expected an evaluation made by the kit", where=item.given)
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
            read.append(pretraining_shares(item.owner, wanted.shares))
        except InputError as error:
            problems.extend(error)
    problems.raise_if_any()
    components = list(wanted.shares or dict.fromkeys(name for row in read for name in row))
    shares = np.array([[row.get(name, 0.0) for name in components] for row in read])
    return _checked_mixes(wanted, list(items), components, shares, np.array(scores), chosen)


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
    """The scores taken where none is asked for: each benchmark's accuracy."""
    found = {name: benchmark.primary for name, benchmark in read_results(item.path).items()}
    chosen = tuple(f"{name}.{metric}" for name, metric in found.items() if metric in ACCURACIES)
    if not chosen:
        raise InputError(
            "no benchmark here has an accuracy", where=item.given, hint="name what counts with --score"
        )
    return chosen


def _checked_mixes(
    wanted: MixSelection,
    names: list[str],
    components: list[str],
    shares: Floats,
    scores: Floats,
    chosen: tuple[str, ...],
) -> ScoredMixes:
    """Complete the shares, refuse those that do not add up, and settle what is better."""
    problems = Problems(InputError)
    if wanted.remainder is not None:
        if wanted.remainder in components:
            raise UsageError(f"'{wanted.remainder}' is a share already", where="--remainder")
        components = [*components, wanted.remainder]
        shares = np.concatenate([shares, 1 - shares.sum(1, keepdims=True)], axis=1)
    for name, row in zip(names, shares, strict=True):
        if row.min() < -1e-9:
            problems.add(f"a share is negative ({row.min():.3g})", where=f"mix {name}")
        elif abs(row.sum() - 1) > TOLERANCE:
            problems.add(
                f"the shares add up to {row.sum():.3g}",
                where=f"mix {name}",
                hint="name all components with --shares, or what is left with --remainder",
            )
    problems.raise_if_any()
    if len(components) < 2:
        raise InputError("a mix has at least two components", where="--shares")
    metrics = [name.rpartition(".")[2] for name in chosen]
    lower = [
        metric in LOWER_IS_BETTER or name in LOWER_IS_BETTER
        for metric, name in zip(metrics, chosen, strict=True)
    ]
    if wanted.goal == "auto" and any(lower) and not all(lower):
        raise UsageError(
            f"more is better of some of {', '.join(chosen)}, less of others",
            where="--score",
            hint="give --goal",
        )
    minimise = wanted.goal == "minimise" or (wanted.goal == "auto" and all(lower))
    score = chosen[0] if len(chosen) == 1 else f"mean of {', '.join(chosen)}"
    return ScoredMixes(names, components, shares / shares.sum(1, keepdims=True), scores, score, minimise)
