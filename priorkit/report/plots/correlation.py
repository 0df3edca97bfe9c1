"""Accuracy against Rank_e: one dot per entity, and means in bins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.core.interval import Interval
from priorkit.report import numbers
from priorkit.report.figures import (
    INK,
    WIDTH,
    drawing,
    error_lengths,
    jitter,
    legend,
    log_ticks,
    series_color,
    series_marker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def accuracy_scatter(
    ranks: ArrayLike,
    accuracy: Mapping[str, ArrayLike],
    captions: Mapping[str, str],
    groups: Sequence[str] | None = None,
) -> Figure:
    """Accuracy over Rank_e: a dot per entity, a panel per evaluation; equal accuracies are jittered.

    Args:
        ranks: [entities] mean rank.
        accuracy: evaluation -> [entities].
        captions: evaluation -> its coefficient as text.
        groups: [entities] prior group that colors the dots, if known.
    """
    x = np.asarray(ranks, dtype=np.float64)
    columns = min(3, len(accuracy))
    rows = math.ceil(len(accuracy) / columns)
    width = WIDTH if columns > 1 else 5.6
    with drawing(0.5 + 3.0 * rows, columns, rows, width, share_y=True) as (figure, axes):
        for axis, (label, values) in zip(axes, accuracy.items(), strict=False):
            y = np.asarray(values, dtype=np.float64) + 0.014 * jitter(len(x))
            for number, name in enumerate(dict.fromkeys(groups) if groups else [""]):
                shown = np.array([group == name for group in groups]) if groups else np.ones(len(x), bool)
                axis.scatter(
                    x[shown], y[shown], s=20, alpha=0.55, linewidths=0, color=series_color(number),
                    marker=series_marker(number), label=name or None,
                )  # fmt: skip
            axis.set_xscale("log")
            log_ticks(axis)
            axis.set_ylim(-0.04, 1.04)
            axis.set_title(f"{label}\n{captions.get(label, '')}", fontsize=9, loc="left", color=INK)
            axis.set_xlabel("Rank_e (low: strong prior)")
        for axis in axes[len(accuracy) :]:
            axis.set_visible(False)
        axes[0].set_ylabel("accuracy of the entity")
        legend(figure, axes[0])
    return figure


def accuracy_by_bin(
    centers: Sequence[float],
    names: Sequence[str],
    accuracy: Mapping[str, Sequence[Interval]],
    colors: Sequence[int] = (),
) -> Figure:
    """Mean accuracy with intervals in each bin of Rank_e, a line per evaluation.

    Args:
        centers: mean Rank_e of each bin, for the labels; the bins are equally spaced.
        names: the range of each bin as text.
        accuracy: evaluation -> an interval per bin.
        colors: the evaluations' series numbers; default: from 0.
    """
    positions = np.arange(len(names), dtype=np.float64)
    with drawing(3.4, width=min(WIDTH, 3.0 + 1.1 * len(names))) as (figure, (axis,)):
        numbers = colors or range(len(accuracy))
        for position, (number, label) in enumerate(zip(numbers, accuracy, strict=True)):
            shift = 0.12 * (position - (len(accuracy) - 1) / 2)
            _add_points(axis, positions + shift, accuracy[label], number, label)
        axis.set_xticks(
            positions,
            [f"{name}\nmean {center:.3g}" for name, center in zip(names, centers, strict=True)],
        )
        axis.grid(False, axis="x")
        axis.set_xlabel("Rank_e (low: strong prior)")
        axis.set_ylabel("accuracy")
        axis.set_ylim(bottom=0)
        legend(figure, axis)
    return figure


def _add_points(axis: Any, x: Floats, intervals: Sequence[Interval], number: int, label: str) -> None:
    """A line through points with error bars, in the color and marker of an artifact."""
    values = np.array([interval.value for interval in intervals])
    axis.errorbar(
        x, values, yerr=error_lengths(intervals), label=label, color=series_color(number), marker=series_marker(number),
        markersize=5, linestyle="-", linewidth=1.3, elinewidth=1.3, capsize=0,
    )  # fmt: skip


def spearman_caption(coefficient: Interval) -> str:
    """A coefficient as text, for a panel of :func:`accuracy_scatter`."""
    return f"Spearman {numbers.with_interval(coefficient)}"


def bin_name(low: float, high: float) -> str:
    """The range of a bin as text."""
    return f"{numbers.plain(low)} to {numbers.plain(high)}"
