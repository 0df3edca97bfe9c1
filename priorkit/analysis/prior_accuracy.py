"""Joins Rank_e with accuracy, entity by entity, and correlates the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, nearest
from priorkit.core.interval import Interval, finite
from priorkit.data.results.evaluations import Evaluation
from priorkit.scoring.representations.rank_summary import OPTIONAL_RANK_MEASURES, RANK_MEASURES
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
    bootstrap_indices,
    bootstrap_mean,
    percentile_interval,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EntityAccuracy:
    """Mean score and number of items per entity."""

    accuracy: Mapping[str, float]
    items: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PriorAccuracy:
    """Rank_e and accuracies of the entities that have a rank and answers in every evaluation.

    Attributes:
        entities: names, in the order of the table of ranks.
        measures: rank measure -> float64 ``[entities]``.
        accuracy: evaluation -> mean score, float64 ``[entities]``.
        items: evaluation -> number of items, int64 ``[entities]``.
        only_ranked: number of entities with a rank but without items in some evaluation.
        only_answered: number of entities with items but without a rank.
    """

    entities: tuple[str, ...]
    measures: Mapping[str, Floats]
    accuracy: Mapping[str, Floats]
    items: Mapping[str, NDArray[np.int64]]
    only_ranked: int
    only_answered: int

    @property
    def rank_e(self) -> Floats:
        """The mean rank of each entity."""
        return self.measures["mean_rank"]


@dataclass(frozen=True, slots=True)
class RankBin:
    """A bin of Rank_e with each model's accuracy and its difference from the first model's.

    Attributes:
        low: smallest Rank_e.
        high: largest Rank_e.
        rows: indices of the bin's entities.
        mean_rank: mean Rank_e.
        accuracy: evaluation -> mean over entities with interval.
        difference: evaluation -> paired difference from the first evaluation, which has no entry.
    """

    low: float
    high: float
    rows: NDArray[np.int64]
    mean_rank: float
    accuracy: Mapping[str, Interval]
    difference: Mapping[str, Interval]


def entity_benchmarks(evaluation: Evaluation, requested: Sequence[str] = ()) -> tuple[str, ...]:
    """The benchmarks whose items name an entity, or the requested ones.

    Raises:
        InputError: none names an entity, or a requested one is missing or names none.
    """
    available = tuple(
        dict.fromkeys(
            sample.benchmark for samples in evaluation.by_benchmark.values() for sample in samples
            if sample.groups.get("entity")
        )
    )  # fmt: skip
    for name in requested:
        if name not in evaluation.benchmarks:
            raise InputError(f"no benchmark '{name}' here", hint=nearest(name, evaluation.benchmarks))
        if name not in available:
            raise InputError(f"the items of '{name}' name no entity", hint=nearest("", available))
    if not available:
        raise InputError(
            "no item names an entity",
            hint="evaluate a benchmark with a column 'entity'",
        )
    return tuple(requested) or available


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


def pool_seeds(runs: Sequence[EntityAccuracy]) -> EntityAccuracy:
    """The accuracy over the items of several seeds of a model, of the entities that all of them have items of."""
    items = {
        entity: sum(run.items[entity] for run in runs)
        for entity in runs[0].items
        if all(entity in run.items for run in runs)
    }
    accuracy = {
        entity: math.fsum(run.accuracy[entity] * run.items[entity] for run in runs) / count
        for entity, count in items.items()
    }
    return EntityAccuracy(accuracy, items)


def join_by_entity(
    table: Mapping[str, Sequence[object]], accuracies: Mapping[str, EntityAccuracy]
) -> PriorAccuracy:
    """Keep the entities that the ranks and every evaluation have in common.

    Args:
        table: the columns of a rank-e ``table.parquet``.
        accuracies: evaluation -> accuracy per entity.

    Raises:
        InputError: fewer than three entities in common.
    """
    names = [str(name) for name in table["entity"]]
    rows = [
        row
        for row, name in enumerate(names)
        if all(name in evaluation.accuracy for evaluation in accuracies.values())
    ]
    entities = tuple(names[row] for row in rows)
    answered = list(dict.fromkeys(name for evaluation in accuracies.values() for name in evaluation.accuracy))
    if len(entities) < 3:
        raise InputError(
            f"only {len(entities)} entities have both a rank and answers; a correlation needs three",
            hint=f"ranked: {_first_names(names)}; answered: {_first_names(answered)}",
        )
    ranked = set(names)
    return PriorAccuracy(
        entities=entities,
        measures={
            measure: np.array(table[measure], dtype=np.float64)[rows]
            for measure in (*RANK_MEASURES, *OPTIONAL_RANK_MEASURES)
            if measure in table
        },
        accuracy={
            label: np.array([evaluation.accuracy[name] for name in entities])
            for label, evaluation in accuracies.items()
        },
        items={
            label: np.array([evaluation.items[name] for name in entities], dtype=np.int64)
            for label, evaluation in accuracies.items()
        },
        only_ranked=len(names) - len(entities),
        only_answered=sum(name not in ranked for name in answered),
    )


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") if names else "none"


def rank_bins(data: PriorAccuracy, bins: int, *, seed: int, resamples: int) -> list[RankBin]:
    """Bins with equally many entities along Rank_e, the same for all models.

    Raises:
        InputError: fewer entities than bins.
    """
    first = next(iter(data.accuracy))
    rows_of_bins = np.array_split(np.argsort(data.rank_e, kind="stable"), bins)
    binned = {
        label: equal_count_bins(data.rank_e, accuracy, bins, seed=seed, resamples=resamples)
        for label, accuracy in data.accuracy.items()
    }
    return [
        RankBin(
            low=binned[first][number].low,
            high=binned[first][number].high,
            rows=rows,
            mean_rank=binned[first][number].mean_x,
            accuracy={label: binned[label][number].y for label in data.accuracy},
            difference={
                label: bootstrap_difference(
                    accuracy[rows], data.accuracy[first][rows], seed=seed + number, resamples=resamples
                )
                for label, accuracy in data.accuracy.items()
                if label != first
            },
        )
        for number, rows in enumerate(rows_of_bins)
    ]


def mean_accuracies(data: PriorAccuracy, *, seed: int, resamples: int) -> dict[str, Interval]:
    """Each evaluation's accuracy as a mean over entities."""
    return {
        label: bootstrap_mean(accuracy, seed=seed, resamples=resamples)
        for label, accuracy in data.accuracy.items()
    }


def rank_correlations(
    data: PriorAccuracy, label: str, *, seed: int, resamples: int
) -> dict[str, dict[str, object]]:
    """Spearman and Kendall of every rank measure with one evaluation's accuracy.

    Intervals resample entities.

    Returns:
        measure -> ``spearman`` and ``kendall``, each ``value, low, high, p_value``.
    """
    accuracy = data.accuracy[label]
    correlations: dict[str, dict[str, object]] = {}
    for measure, values in data.measures.items():
        rho = correlation_interval(values, accuracy, seed=seed, resamples=resamples)
        tau = correlation_interval(values, accuracy, seed=seed, method="kendall", resamples=resamples)
        correlations[measure] = {
            "spearman": _to_dict(rho, spearman(values, accuracy)),
            "kendall": _to_dict(tau, kendall(values, accuracy)),
        }
    return correlations


def partial_correlation(
    data: PriorAccuracy, label: str, controls: Mapping[str, Floats], *, seed: int, resamples: int
) -> dict[str, object] | None:
    """Spearman of Rank_e with one evaluation's accuracy, controlling for other variables.

    Args:
        data: ranks and accuracies by entity.
        label: the evaluation.
        controls: name -> float64 ``[entities]``; entities with a NaN are left out.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        ``value, low, high, p_value, entities``; None if too few entities have the controls.
    """
    control_values = np.array(list(controls.values()))
    known = ~np.isnan(control_values).any(0)
    if known.sum() < len(controls) + 3:
        return None
    ranks, accuracy, fixed = data.rank_e[known], data.accuracy[label][known], control_values[:, known]
    correlation = partial_spearman(ranks, accuracy, list(fixed))
    replicates = np.array(
        [
            partial_spearman(ranks[draw], accuracy[draw], list(fixed[:, draw])).coefficient
            for block in bootstrap_indices(len(ranks), resamples, seed)
            for draw in block
        ]
    )
    interval = percentile_interval(correlation.coefficient, replicates, 0.95)
    return {**_to_dict(interval, correlation), "entities": correlation.pairs}


def _to_dict(interval: Interval, correlation: Correlation) -> dict[str, object]:
    """A coefficient for JSON; null where undefined."""
    return {**interval.to_dict(), "p_value": finite(correlation.p_value)}
