"""What an encoder knows against what a model answers: joining Rank_e with accuracy, entity by entity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, nearest
from priorkit.core.interval import Interval, finite
from priorkit.data.results.evaluations import Evaluation
from priorkit.scoring.statistics.correlation import (
    Correlation,
    correlation_interval,
    equal_count_bins,
    kendall,
    partial_spearman,
    spearman,
)
from priorkit.scoring.statistics.intervals import (
    bootstrap_difference,
    bootstrap_mean,
    percentile_interval,
    resampled,
)

Floats = NDArray[np.float64]

SIGN = (
    "A low mean rank is a strong prior: a negative correlation means that what the encoder knows is "
    "answered better."
)
"""The sign convention, written on every output."""

MEASURES = ("mean_rank", "percentile", "mean_log_rank", "mrr", "recall_at_1", "recall_at_5")
"""Rank_e and its variants; of the last three, high is a strong prior."""

MORE_MEASURES = ("median_rank", "reverse_mean_rank")
"""Variants that are compared where the ranks have them; low is a strong prior."""


@dataclass(frozen=True, slots=True)
class EntityAccuracy:
    """Mean score and number of items per entity."""

    accuracy: Mapping[str, float]
    items: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Joined:
    """Entities that have both a rank and an answer from every model, in the order of the ranks' table.

    Attributes:
        entities: names.
        measures: measure -> [entities].
        accuracy: evaluation -> [entities] mean score.
        items: evaluation -> [entities] number of items.
        only_ranked: entities with a rank but without items in some evaluation.
        only_answered: entities with items but without a rank.
    """

    entities: tuple[str, ...]
    measures: Mapping[str, Floats]
    accuracy: Mapping[str, Floats]
    items: Mapping[str, NDArray[np.int64]]
    only_ranked: int
    only_answered: int


@dataclass(frozen=True, slots=True)
class RankBin:
    """A bin of Rank_e with each model's accuracy and its difference from the first model's.

    Attributes:
        low: smallest Rank_e.
        high: largest Rank_e.
        rows: the bin's entities, as row numbers.
        mean_rank: mean Rank_e.
        accuracy: evaluation -> mean over entities with interval.
        difference: evaluation -> paired difference from the first evaluation; the first is not in it.
    """

    low: float
    high: float
    rows: NDArray[np.int64]
    mean_rank: float
    accuracy: Mapping[str, Interval]
    difference: Mapping[str, Interval]


def entity_benchmarks(evaluation: Evaluation, chosen: Sequence[str] = ()) -> tuple[str, ...]:
    """The benchmarks whose items name an entity, or the chosen ones of them.

    Raises:
        InputError: none names an entity, or a chosen one is not there or names none.
    """
    able = tuple(
        dict.fromkeys(
            sample.benchmark for samples in evaluation.by_benchmark.values() for sample in samples
            if sample.groups.get("entity")
        )
    )  # fmt: skip
    for name in chosen:
        if name not in evaluation.benchmarks:
            raise InputError(f"no benchmark '{name}' here", hint=nearest(name, evaluation.benchmarks))
        if name not in able:
            raise InputError(f"the items of '{name}' name no entity", hint=nearest("", able))
    if not able:
        raise InputError(
            "no item names an entity",
            hint="evaluate a benchmark with a column 'entity'",
        )
    return tuple(chosen) or able


def entity_accuracy(evaluation: Evaluation, benchmarks: Sequence[str]) -> EntityAccuracy:
    """Mean score per entity over the items of the benchmarks, each item counting once."""
    scores: dict[str, list[float]] = {}
    for name in benchmarks:
        for sample in evaluation.by_benchmark.get(name, []):
            entity = sample.groups.get("entity")
            if entity and sample.score is not None:
                scores.setdefault(entity, []).append(sample.score)
    return EntityAccuracy(
        {entity: math.fsum(values) / len(values) for entity, values in scores.items()},
        {entity: len(values) for entity, values in scores.items()},
    )


def join(table: Mapping[str, Sequence[object]], accuracies: Mapping[str, EntityAccuracy]) -> Joined:
    """Keep the entities that the ranks and every evaluation share.

    Args:
        table: the columns of a rank-e ``table.parquet``.
        accuracies: evaluation -> accuracy per entity.

    Raises:
        InputError: fewer than three entities are shared.
    """
    names = [str(name) for name in table["entity"]]
    rows = [
        row for row, name in enumerate(names) if all(name in found.accuracy for found in accuracies.values())
    ]
    entities = tuple(names[row] for row in rows)
    answered = {name: None for found in accuracies.values() for name in found.accuracy}
    if len(entities) < 3:
        raise InputError(
            f"only {len(entities)} entities have both a rank and answers; a correlation needs three",
            hint=f"ranked: {_first(names)}; answered: {_first(list(answered))}",
        )
    ranked = set(names)
    return Joined(
        entities=entities,
        measures={
            measure: np.array(table[measure], dtype=np.float64)[rows]
            for measure in (*MEASURES, *MORE_MEASURES)
            if measure in table
        },
        accuracy={
            label: np.array([found.accuracy[name] for name in entities])
            for label, found in accuracies.items()
        },
        items={
            label: np.array([found.items[name] for name in entities], dtype=np.int64)
            for label, found in accuracies.items()
        },
        only_ranked=len(names) - len(entities),
        only_answered=sum(name not in ranked for name in answered),
    )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") if names else "none"


def rank_bins(joined: Joined, bins: int, *, seed: int, resamples: int) -> list[RankBin]:
    """Bins with equally many entities along Rank_e, the same for all models.

    Raises:
        InputError: fewer entities than bins.
    """
    ranks = joined.measures["mean_rank"]
    first = next(iter(joined.accuracy))
    order = np.argsort(ranks, kind="stable")
    parts = np.array_split(order, bins)
    found = {
        label: equal_count_bins(ranks, values, bins, seed=seed, resamples=resamples)
        for label, values in joined.accuracy.items()
    }
    return [
        RankBin(
            low=found[first][number].low,
            high=found[first][number].high,
            rows=rows,
            mean_rank=found[first][number].mean_x,
            accuracy={label: found[label][number].y for label in joined.accuracy},
            difference={
                label: bootstrap_difference(
                    values[rows], joined.accuracy[first][rows], seed=seed + number, resamples=resamples
                )
                for label, values in joined.accuracy.items()
                if label != first
            },
        )
        for number, rows in enumerate(parts)
    ]


def overall(joined: Joined, *, seed: int, resamples: int) -> dict[str, Interval]:
    """Each model's accuracy as a mean over entities."""
    return {
        label: bootstrap_mean(values, seed=seed, resamples=resamples)
        for label, values in joined.accuracy.items()
    }


def coefficients(joined: Joined, label: str, *, seed: int, resamples: int) -> dict[str, dict[str, object]]:
    """Spearman and Kendall of every measure with one model's accuracy.

    Intervals resample entities.

    Returns:
        measure -> ``spearman`` and ``kendall``, each ``value, low, high, p_value``.
    """
    accuracy = joined.accuracy[label]
    found: dict[str, dict[str, object]] = {}
    for measure, values in joined.measures.items():
        interval = correlation_interval(values, accuracy, seed=seed, resamples=resamples)
        wide = correlation_interval(values, accuracy, seed=seed, method="kendall", resamples=resamples)
        found[measure] = {
            "spearman": coefficient(interval, spearman(values, accuracy)),
            "kendall": coefficient(wide, kendall(values, accuracy)),
        }
    return found


def partial(
    joined: Joined, label: str, controls: Mapping[str, Floats], *, seed: int, resamples: int
) -> dict[str, object] | None:
    """Spearman of Rank_e with one model's accuracy, the controls held fixed.

    Args:
        joined: entities with ranks and accuracies.
        label: the evaluation.
        controls: name -> [entities]; NaN where the control is not known, such entities are left out.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        ``value, low, high, p_value, entities``; None where too few entities have the controls.
    """
    stacked = np.array(list(controls.values()))
    known = ~np.isnan(stacked).any(0)
    if known.sum() < len(controls) + 3:
        return None
    ranks, accuracy, fixed = (
        joined.measures["mean_rank"][known],
        joined.accuracy[label][known],
        stacked[:, known],
    )
    found = partial_spearman(ranks, accuracy, list(fixed))
    replicates = np.array(
        [
            partial_spearman(ranks[draw], accuracy[draw], list(fixed[:, draw])).coefficient
            for block in resampled(len(ranks), resamples, seed)
            for draw in block
        ]
    )
    interval = percentile_interval(found.coefficient, replicates, 0.95)
    return {**coefficient(interval, found), "entities": found.pairs}


def coefficient(interval: Interval, found: Correlation) -> dict[str, object]:
    """A coefficient as it stands in JSON; what is undefined is null."""
    return {**interval.to_dict(), "p_value": finite(found.p_value)}
