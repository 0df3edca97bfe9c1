"""Metrics with bootstrap intervals: every metric is a function of sums over items.

An item contributes a row of counts; a metric is computed from the column sums (a mean from the sum of
scores and the number of items, F1 from four counts, BLEU from n-gram counts, perplexity from
log-probabilities and tokens). So one mechanism resamples them all: draw items, sum their rows, compute
the metrics of all resamples at once. Source: Efron and Tibshirani, "An Introduction to the Bootstrap"
(1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import percentile_interval, resampled

Floats = NDArray[np.float64]
MetricFunction = Callable[[Floats], dict[str, Floats]]
"""From sums ``[..., columns]`` to metrics ``[...]`` by name."""

LEVEL = 0.95


@dataclass(frozen=True)
class BootstrapEstimate:
    """A metric with its bootstrap replicates, ``[resamples]``."""

    value: float
    replicates: Floats

    @property
    def interval(self) -> Interval:
        """The 95 % percentile interval."""
        return percentile_interval(self.value, self.replicates, LEVEL)

    @property
    def error(self) -> float:
        """The bootstrap standard error; NaN where no replicate is defined."""
        defined = self.replicates[np.isfinite(self.replicates)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def detectable(error: float) -> float:
    """The smallest difference between two models that a 95 % interval tells from none.

    ``1.96 * sqrt(2) * error``: both are measured with this standard error, independently of each other. A
    paired comparison on the same items tells smaller ones apart, by as much as the models agree.
    """
    return 1.959964 * math.sqrt(2) * error


def mean_of(parts: Sequence[BootstrapEstimate]) -> BootstrapEstimate:
    """The unweighted mean of metrics of different benchmarks, which vary independently."""
    values = [part.value for part in parts]
    return BootstrapEstimate(
        math.fsum(values) / len(values), np.mean([part.replicates for part in parts], axis=0)
    )


def measure(
    counts: Floats,
    metrics: MetricFunction,
    *,
    seed: int,
    resamples: int,
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[str] | None = None,
) -> dict[str, Interval]:
    """All metrics of a set of items, each with its interval; see :func:`resample`."""
    found = resample(counts, metrics, seed=seed, resamples=resamples, clusters=clusters, strata=strata)
    return {name: own.interval for name, own in found.items()}


def resample(
    counts: Floats,
    metrics: MetricFunction,
    *,
    seed: int,
    resamples: int,
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[str] | None = None,
) -> dict[str, BootstrapEstimate]:
    """All metrics of a set of items with their bootstrap replicates.

    Args:
        counts: ``[items, columns]``, at least one item.
        metrics: computes the metrics from column sums.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        clusters: a key per item; whole clusters are resampled, since the questions about one image do
            not vary independently.
        strata: a label per item; adds ``macro_accuracy``, the unweighted mean over labels of
            ``accuracy``.
    """
    labels = list(dict.fromkeys(strata or ()))
    blocks = [counts]
    if strata is not None:
        blocks += [counts * np.array([label == own for own in strata])[:, None] for label in labels]
    stacked = _by_cluster(np.stack(blocks, axis=1), clusters)
    values = _all_metrics(stacked.sum(0, keepdims=True), metrics, bool(labels))
    flat = stacked.reshape(len(stacked), -1)
    sums = np.concatenate(
        [_multiplicities(draw, len(flat)) @ flat for draw in resampled(len(flat), resamples, seed)]
    )
    replicates = _all_metrics(sums.reshape(-1, *stacked.shape[1:]), metrics, bool(labels))
    return {name: BootstrapEstimate(float(values[name][0]), replicates[name]) for name in values}


def _by_cluster(rows: Floats, clusters: Sequence[Hashable] | None) -> Floats:
    """Sum the rows of each cluster."""
    if clusters is None or len(set(clusters)) == len(clusters):
        return rows
    number = {key: index for index, key in enumerate(dict.fromkeys(clusters))}
    summed = np.zeros((len(number), *rows.shape[1:]))
    np.add.at(summed, [number[key] for key in clusters], rows)
    return summed


def _multiplicities(draw: NDArray[np.int64], items: int) -> Floats:
    """How often each resample draws each item, ``[resamples, items]``."""
    offsets = np.arange(len(draw))[:, None] * items
    found = np.bincount((draw + offsets).ravel(), minlength=len(draw) * items)
    return found.reshape(len(draw), items).astype(np.float64)


def _all_metrics(sums: Floats, metrics: MetricFunction, stratified: bool) -> dict[str, Floats]:
    """Metrics of sums ``[resamples, 1 + strata, columns]``; a stratum without items makes the macro NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = metrics(sums[:, 0])
        if stratified:
            found["macro_accuracy"] = metrics(sums[:, 1:])["accuracy"].mean(-1)
    return found


def as_json(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Metrics as ``results.json`` holds them; what is not finite becomes null."""
    return {name: found.to_dict() for name, found in metrics.items()}
