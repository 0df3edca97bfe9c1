"""Distributions of Rank_e over entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.report.figures import (
    GRID,
    INK,
    PAPER,
    drawing,
    jitter,
    legend,
    log_ticks,
    series_color,
    series_marker,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def rank_distributions(
    groups: Sequence[str],
    ranks: Mapping[str, Mapping[str, ArrayLike]],
    unit: str,
    colors: Sequence[int] = (),
) -> Figure:
    """Rank_e of entities: a row per group, with dots, middle half and median per artifact.

    Args:
        groups: names of the groups, top to bottom.
        ranks: artifact -> group -> [entities] mean rank.
        unit: what the axis shows.
        colors: the artifacts' series numbers; default: from 0.
    """
    count = len(ranks)
    with drawing(1.0 + 0.3 * len(groups) * count + 0.12 * len(groups)) as (figure, (axis,)):
        numbers = colors or range(count)
        for position, (number, label, by_group) in enumerate(
            zip(numbers, ranks, ranks.values(), strict=True)
        ):
            first = next(
                (r for r, group in enumerate(groups) if len(np.asarray(by_group.get(group, [])))), None
            )
            for row, group in enumerate(groups):
                values = np.sort(np.asarray(by_group.get(group, []), dtype=np.float64))
                if not len(values):
                    continue
                y = row + 0.8 * ((position + 0.5) / count - 0.5)
                spread = 0.22 / count * jitter(len(values))
                axis.scatter(
                    values, y + spread, s=7, alpha=0.4, linewidths=0, color=series_color(number),
                )  # fmt: skip
                low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
                axis.plot(
                    [low, high], [y, y], color=series_color(number), linewidth=2.4, solid_capstyle="butt"
                )
                axis.plot(
                    [median], [y], marker=series_marker(number), color=series_color(number), markersize=6.5,
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
