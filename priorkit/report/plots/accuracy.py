"""Metrics with intervals side by side, and accuracy over the IoU threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.report.figures import (
    GRID,
    INK,
    MUTED,
    WIDTH,
    drawing,
    error_lengths,
    legend,
    log_ticks,
    series_color,
    series_marker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def intervals_by_group(
    groups: Sequence[str],
    values: Mapping[str, Sequence[Interval | None]],
    unit: str,
    chance: Sequence[float | None] = (),
    log: bool = False,
    colors: Sequence[int] = (),
    width: float = WIDTH * 0.86,
) -> Figure:
    """Values with intervals: a row per group, a dot per artifact.

    Args:
        groups: names of the rows, top to bottom.
        values: artifact -> a value per group, None if missing.
        unit: what the horizontal axis shows.
        chance: the score of guessing, per group.
        log: whether the axis is logarithmic.
        colors: the artifacts' series numbers; default: from 0.
        width: in inches.
    """
    height = 0.9 + len(groups) * max(0.28, 0.13 * len(values) + 0.1)
    with drawing(height, width=width) as (figure, (axis,)):
        numbers = colors or range(len(values))
        for position, (number, label, intervals) in enumerate(
            zip(numbers, values, values.values(), strict=True)
        ):
            shift = 0.62 * ((position + 0.5) / len(values) - 0.5)
            rows = [(row, interval) for row, interval in enumerate(intervals) if interval is not None]
            _add_points(axis, rows, shift, number, label)
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
            # A little below zero, so that a marker at zero is not cut off.
            axis.set_xlim(left=-0.012 * axis.get_xlim()[1])
        legend(figure, axis)
    return figure


def _add_points(
    axis: Any, rows: Sequence[tuple[int, Interval]], shift: float, number: int, label: str
) -> None:
    axis.errorbar(
        [interval.value for _, interval in rows], [row + shift for row, _ in rows], xerr=error_lengths([interval for _, interval in rows]),
        label=label, color=series_color(number), marker=series_marker(number), markersize=4.5,
        linestyle="none", elinewidth=1.4, capsize=0,
    )  # fmt: skip


def iou_curves(curves: Mapping[str, Mapping[float, Interval]], colors: Sequence[int] = ()) -> Figure:
    """Accuracy over the IoU threshold, a line with its 95 % band per evaluation.

    Args:
        curves: evaluation -> threshold -> accuracy.
        colors: the evaluations' series numbers; default: from 0.
    """
    with drawing(3.2, width=5.6) as (figure, (axis,)):
        numbers = colors or range(len(curves))
        for number, (label, curve) in zip(numbers, curves.items(), strict=True):
            color, x = series_color(number), list(curve)
            axis.fill_between(
                x, [i.low for i in curve.values()], [i.high for i in curve.values()], color=color,
                alpha=0.15, linewidth=0,
            )  # fmt: skip
            axis.plot(
                x, [i.value for i in curve.values()], color=color, marker=series_marker(number), markersize=4.5,
                linewidth=1.4, label=label,
            )  # fmt: skip
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("IoU threshold")
        axis.set_ylabel("accuracy")
        legend(figure, axis)
    return figure
