"""Metrics with bootstrap intervals: every metric is a function of sums over items.

Each item contributes a row of counts; a metric is computed from the column sums (a mean from the sum of
scores and the number of items, F1 from four counts, BLEU from n-gram counts, perplexity from
log-probabilities and tokens). All are resampled alike: draw items, sum their rows, compute the metrics of
all resamples at once. Source: Efron and Tibshirani, "An Introduction to the Bootstrap"
(1993), chapter 13 (percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_indices, percentile_interval

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
        """The bootstrap standard error; NaN if fewer than two replicates are finite."""
        defined = self.replicates[np.isfinite(self.replicates)]
        return float(defined.std(ddof=1)) if len(defined) > 1 else math.nan


def detectable_difference(error: float) -> float:
    """The smallest significant difference (95 %) between two models measured independently with this standard error.

    ``1.96 * sqrt(2) * error``. A paired comparison on the same items detects smaller differences, the more so
    the more the models agree.
    """
    return 1.959964 * math.sqrt(2) * error


def mean_of_metrics(parts: Sequence[BootstrapEstimate]) -> BootstrapEstimate:
    """The unweighted mean of metrics of different, independent benchmarks."""
    values = [part.value for part in parts]
    return BootstrapEstimate(
        math.fsum(values) / len(values), np.mean([part.replicates for part in parts], axis=0)
    )


def bootstrap_metrics(
    counts: Floats,
    metrics: MetricFunction,
    *,
    seed: int,
    resamples: int,
    clusters: Sequence[Hashable] | None = None,
    strata: Sequence[str] | None = None,
) -> dict[str, BootstrapEstimate]:
    """Metrics of a set of items with their bootstrap replicates.

    Args:
        counts: ``[items, columns]``, at least one item.
        metrics: computes the metrics from column sums.
        seed: of the resampling.
        resamples: number of bootstrap samples.
        clusters: a key per item; clusters are resampled, since questions about one image are not independent.
        strata: a label per item; adds ``macro_accuracy``, the unweighted mean over labels of
            ``accuracy``.
    """
    labels = list(dict.fromkeys(strata or ()))
    blocks = [counts]
    if strata is not None:
        blocks += [counts * np.array([label == stratum for stratum in strata])[:, None] for label in labels]
    stacked = _by_cluster(np.stack(blocks, axis=1), clusters)
    values = _all_metrics(stacked.sum(0, keepdims=True), metrics, bool(labels))
    flat = stacked.reshape(len(stacked), -1)
    sums = np.concatenate(
        [_multiplicities(draw, len(flat)) @ flat for draw in bootstrap_indices(len(flat), resamples, seed)]
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
    counts = np.bincount((draw + offsets).ravel(), minlength=len(draw) * items)
    return counts.reshape(len(draw), items).astype(np.float64)


def _all_metrics(sums: Floats, metrics: MetricFunction, stratified: bool) -> dict[str, Floats]:
    """Metrics of sums ``[resamples, 1 + strata, columns]``; the macro accuracy is NaN if a stratum has no items."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = metrics(sums[:, 0])
        if stratified:
            values["macro_accuracy"] = metrics(sums[:, 1:])["accuracy"].mean(-1)
    return values


def metrics_to_dict(metrics: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Metrics as in ``results.json``; null if not finite."""
    return {name: interval.to_dict() for name, interval in metrics.items()}
