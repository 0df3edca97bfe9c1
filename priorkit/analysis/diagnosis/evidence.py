"""Evidence per entity with intervals, from values per image, fact or context."""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.scoring.statistics.intervals import bootstrap_mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """A measure of each entity with the ends of its 95 % interval; NaN where it cannot be had: ``[entities]``."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Evidence:
    """What was measured of each entity.

    Attributes:
        entities: names.
        images: ``[entities]`` number of images.
        right: ``[entities]`` number of images whose own name is the most probable of those compared.
        accuracy: share of these.
        measures: by name, those of :data:`priorkit.analysis.diagnosis.measures.MEASURES` that could be had.
    """

    entities: Sequence[str]
    images: NDArray[np.int64]
    right: NDArray[np.int64]
    accuracy: Estimates
    measures: Mapping[str, Estimates] = field(default_factory=dict[str, Estimates])

    def columns(self) -> dict[str, Any]:
        """Columns of ``table.parquet``: values and ends of intervals, None where undefined."""
        columns: dict[str, Any] = {"images": self.images.tolist()}
        for name, estimates in self.measures.items():
            columns[name] = _cells(estimates.value)
            columns[f"{name}_low"] = _cells(estimates.low)
            columns[f"{name}_high"] = _cells(estimates.high)
        return columns


def _cells(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def means(
    values: ArrayLike, entity_of: Sequence[int], entities: int, *, seed: int, resamples: int
) -> Estimates:
    """Mean over each entity's values with a percentile bootstrap interval.

    Values that are NaN are left out. A single value has no interval.

    Args:
        values: one per image, fact or context.
        entity_of: the entity of each.
        entities: their number.
        seed: of the bootstrap.
        resamples: of the bootstrap.
    """
    groups = _groups(values, entity_of, entities)
    found = np.full((3, entities), np.nan)
    for entity, group in enumerate(groups):
        if len(group) == 1:
            found[0, entity] = group[0]
        elif len(group):
            interval = bootstrap_mean(group, seed=seed, resamples=resamples)
            found[:, entity] = interval.value, interval.low, interval.high
    return Estimates(*found)


def shares(values: ArrayLike, entity_of: Sequence[int], entities: int) -> Estimates:
    """Share of each entity's values that are 1, with Wilson's score interval; values are 0, 1 or NaN."""
    from scipy.stats import binomtest

    found = np.full((3, entities), np.nan)
    for entity, group in enumerate(_groups(values, entity_of, entities)):
        if len(group):
            interval = binomtest(int(group.sum()), len(group)).proportion_ci(method="wilson")
            found[:, entity] = group.mean(), interval.low, interval.high
    return Estimates(*found)


def census(values: ArrayLike) -> Estimates:
    """Counts of all there is: nothing was sampled, so the ends of the interval are the count."""
    counts = np.asarray(values, dtype=np.float64)
    return Estimates(counts, counts, counts)


def _groups(values: ArrayLike, entity_of: Sequence[int], entities: int) -> list[Floats]:
    numbers, group = np.asarray(values, dtype=np.float64).ravel(), np.asarray(entity_of)
    kept = ~np.isnan(numbers)
    numbers, group = numbers[kept], group[kept]
    order = np.argsort(group, kind="stable")
    return np.split(numbers[order], np.searchsorted(group[order], np.arange(1, entities)))
