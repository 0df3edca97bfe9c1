"""The plots of the report and of `correlate`: plain values in, a figure out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.core.interval import Interval
from priorkit.report.figures import (
    GRID,
    INK,
    MUTED,
    PAPER,
    WIDTH,
    drawing,
    legend,
    log_ticks,
    series_color,
    series_marker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """A training curve: x in steps, the raw values and their smoothed course."""

    label: str
    x: ArrayLike
    raw: ArrayLike
    smooth: ArrayLike


def scatter(
    ranks: ArrayLike,
    accuracy: Mapping[str, ArrayLike],
    captions: Mapping[str, str],
    groups: Sequence[str] | None = None,
) -> Figure:
    """Accuracy over Rank_e, a dot per entity and a panel per evaluation; equal accuracies are spread a little.

    Args:
        ranks: [entities] mean rank.
        accuracy: evaluation -> [entities].
        captions: evaluation -> the coefficient in words.
        groups: [entities] prior group that colours the dots, where known.
    """
    x = np.asarray(ranks, dtype=np.float64)
    columns = min(3, len(accuracy))
    rows = math.ceil(len(accuracy) / columns)
    width = WIDTH if columns > 1 else 5.6
    with drawing(0.5 + 3.0 * rows, columns, rows, width, share_y=True) as (figure, axes):
        for axis, (label, values) in zip(axes, accuracy.items(), strict=False):
            y = np.asarray(values, dtype=np.float64) + 0.014 * _scattered(len(x))
            for number, name in enumerate(dict.fromkeys(groups) if groups else [""]):
                chosen = np.array([group == name for group in groups]) if groups else np.ones(len(x), bool)
                axis.scatter(
                    x[chosen], y[chosen], s=20, alpha=0.55, linewidths=0, color=series_color(number),
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


def bins(
    centres: Sequence[float],
    names: Sequence[str],
    accuracy: Mapping[str, Sequence[Interval]],
    colors: Sequence[int] = (),
) -> Figure:
    """Mean accuracy with intervals per bin of Rank_e, a line per evaluation.

    Args:
        centres: mean Rank_e of each bin; the labels only, bins stand at equal distances.
        names: the range of each bin in words.
        accuracy: evaluation -> an interval per bin.
        colors: the evaluations' series numbers; from 0 where not given.
    """
    positions = np.arange(len(names), dtype=np.float64)
    with drawing(3.4, width=min(WIDTH, 3.0 + 1.1 * len(names))) as (figure, (axis,)):
        numbers = colors or range(len(accuracy))
        for place, (number, label) in enumerate(zip(numbers, accuracy, strict=True)):
            shift = 0.12 * (place - (len(accuracy) - 1) / 2)
            errors(axis, positions + shift, accuracy[label], number, label, line=True)
        axis.set_xticks(
            positions,
            [f"{name}\nmean {centre:.3g}" for name, centre in zip(names, centres, strict=True)],
        )
        axis.grid(False, axis="x")
        axis.set_xlabel("Rank_e (low: strong prior)")
        axis.set_ylabel("accuracy")
        axis.set_ylim(bottom=0)
        legend(figure, axis)
    return figure


def errors(
    axis: Any, x: Floats, intervals: Sequence[Interval], number: int, label: str, line: bool = False
) -> None:
    """Points with error bars in the colour and marker of an artifact."""
    values = np.array([interval.value for interval in intervals])
    below = [max(0.0, i.value - i.low) if not math.isnan(i.low) else 0.0 for i in intervals]
    above = [max(0.0, i.high - i.value) if not math.isnan(i.high) else 0.0 for i in intervals]
    axis.errorbar(
        x, values, yerr=[below, above], label=label, color=series_color(number), marker=series_marker(number),
        markersize=5, linestyle="-" if line else "none", linewidth=1.3, elinewidth=1.3, capsize=0,
    )  # fmt: skip


def grouped(
    groups: Sequence[str],
    values: Mapping[str, Sequence[Interval | None]],
    unit: str,
    chance: Sequence[float | None] = (),
    log: bool = False,
    colors: Sequence[int] = (),
) -> Figure:
    """Values with intervals side by side: a row per group, a dot per artifact.

    Args:
        groups: names of the rows, top to bottom.
        values: artifact -> a value per group, None where it has none.
        unit: what the horizontal axis shows.
        chance: what blind guessing gets, per group.
        log: whether the axis is logarithmic.
        colors: the artifacts' series numbers; from 0 where not given.
    """
    height = 0.9 + len(groups) * max(0.28, 0.13 * len(values) + 0.1)
    with drawing(height, width=WIDTH * 0.86) as (figure, (axis,)):
        numbers = colors or range(len(values))
        for place, (number, label, intervals) in enumerate(
            zip(numbers, values, values.values(), strict=True)
        ):
            shift = 0.62 * ((place + 0.5) / len(values) - 0.5)
            rows = [(row, found) for row, found in enumerate(intervals) if found is not None]
            _horizontal_errors(axis, rows, shift, number, label)
        known = [(row, level) for row, level in enumerate(chance) if level is not None]
        for count, (row, level) in enumerate(known):
            axis.plot(
                [level, level], [row - 0.42, row + 0.42], color=MUTED, linestyle=(0, (2, 2)),
                label=None if count else "chance",
            )  # fmt: skip
        axis.set_yticks(range(len(groups)), groups)
        axis.set_ylim(len(groups) - 0.45, -0.55)
        axis.grid(False, axis="y")
        axis.set_xlabel(unit)
        axis.tick_params(axis="y", labelcolor=INK)
        for row in range(1, len(groups)):
            axis.axhline(row - 0.5, color=GRID, linewidth=0.6)
        if log:
            axis.set_xscale("log")
            log_ticks(axis)
        else:
            # A little below zero, so that a marker at zero is drawn whole.
            axis.set_xlim(left=-0.012 * axis.get_xlim()[1])
        legend(figure, axis)
    return figure


def _horizontal_errors(
    axis: Any, rows: Sequence[tuple[int, Interval]], shift: float, number: int, label: str
) -> None:
    below = [max(0.0, i.value - i.low) if not math.isnan(i.low) else 0.0 for _, i in rows]
    above = [max(0.0, i.high - i.value) if not math.isnan(i.high) else 0.0 for _, i in rows]
    axis.errorbar(
        [interval.value for _, interval in rows], [row + shift for row, _ in rows], xerr=[below, above],
        label=label, color=series_color(number), marker=series_marker(number), markersize=4.5,
        linestyle="none", elinewidth=1.4, capsize=0,
    )  # fmt: skip


def distributions(
    groups: Sequence[str],
    ranks: Mapping[str, Mapping[str, ArrayLike]],
    unit: str,
    colors: Sequence[int] = (),
) -> Figure:
    """How entities are spread over Rank_e: a panel row per group, a box and its dots per artifact.

    Args:
        groups: names of the groups, top to bottom.
        ranks: artifact -> group -> [entities] mean rank.
        unit: what the axis shows.
        colors: the artifacts' series numbers; from 0 where not given.
    """
    count = len(ranks)
    with drawing(1.0 + 0.3 * len(groups) * count + 0.12 * len(groups)) as (figure, (axis,)):
        numbers = colors or range(count)
        for place, (number, label, by_group) in enumerate(zip(numbers, ranks, ranks.values(), strict=True)):
            first = next(
                (r for r, group in enumerate(groups) if len(np.asarray(by_group.get(group, [])))), None
            )
            for row, group in enumerate(groups):
                values = np.sort(np.asarray(by_group.get(group, []), dtype=np.float64))
                if not len(values):
                    continue
                y = row + 0.8 * ((place + 0.5) / count - 0.5)
                spread = 0.22 / count * _scattered(len(values))
                axis.scatter(
                    values, y + spread, s=7, alpha=0.4, linewidths=0, color=series_color(number),
                )  # fmt: skip
                low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
                axis.plot(
                    [low, high], [y, y], color=series_color(number), linewidth=2.4, solid_capstyle="butt"
                )
                axis.plot(
                    [middle], [y], marker=series_marker(number), color=series_color(number), markersize=6.5,
                    markeredgecolor=PAPER, markeredgewidth=1, linestyle="none",
                    label=label if row == first else None,
                )  # fmt: skip
        axis.set_yticks(range(len(groups)), groups)
        axis.tick_params(axis="y", labelcolor=INK)
        axis.set_ylim(len(groups) - 0.45, -0.55)
        axis.grid(False, axis="y")
        for row in range(1, len(groups)):
            axis.axhline(row - 0.5, color=GRID, linewidth=0.6)
        axis.set_xscale("log")
        log_ticks(axis)
        axis.set_xlabel(unit)
        legend(figure, axis)
    return figure


def _scattered(count: int) -> Floats:
    """Evenly scattered offsets in -1 to 1 (a Weyl sequence), so that dots of equal value show."""
    return np.asarray(2 * ((np.arange(count) * 0.6180339887498949) % 1.0) - 1, dtype=np.float64)


def curves(found: Sequence[Curve], first_color: int = 0) -> Figure:
    """Loss over steps, a panel per training run: raw values pale, the smoothed course strong."""
    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    width = {1: 5.0, 2: 7.4}.get(columns, WIDTH)
    with drawing(0.2 + 2.3 * rows, columns, rows, width) as (figure, axes):
        for number, (axis, curve) in enumerate(zip(axes, found, strict=False), start=first_color):
            color = series_color(number)
            axis.plot(curve.x, curve.raw, color=color, alpha=0.28, linewidth=0.7)
            axis.plot(curve.x, curve.smooth, color=color, linewidth=1.7)
            axis.set_title(curve.label, fontsize=9, loc="left", color=INK)
            axis.locator_params(axis="x", nbins=5)
        for axis in axes[len(found) :]:
            axis.set_visible(False)
        for axis in axes[max(0, len(found) - columns) : len(found)]:
            axis.set_xlabel("step")
        for axis in axes[::columns]:
            axis.set_ylabel("loss")
    return figure


def shares(corpora: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mixtures as stacked bars: a bar per corpus, a colour per source."""
    sources = list(dict.fromkeys(source for mixture in corpora.values() for source in mixture))
    with drawing(0.9 + 0.42 * len(corpora)) as (figure, (axis,)):
        for row, mixture in enumerate(corpora.values()):
            left = 0.0
            for number, source in enumerate(sources):
                width = mixture.get(source, 0.0)
                axis.barh(
                    row, width, left=left, height=0.62, color=series_color(number), edgecolor=PAPER,
                    linewidth=1.2, label=source if row == 0 else None,
                    hatch="" if number < 8 else "///",
                )  # fmt: skip
                if width >= 0.07:
                    axis.text(
                        left + width / 2, row, f"{100 * width:.0f} %", ha="center", va="center", color=PAPER,
                        fontsize=8,
                    )  # fmt: skip
                left += width
        axis.set_yticks(range(len(corpora)), list(corpora))
        axis.tick_params(axis="y", labelcolor=INK)
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_xticks(np.linspace(0, 1, 6), [f"{value} %" for value in range(0, 101, 20)])
        axis.grid(False, axis="y")
        axis.set_xlabel("share of tokens")
        legend(figure, axis, columns=7)
    return figure
