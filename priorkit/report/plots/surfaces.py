"""A response surface over mixtures: slices through the best mix, and how well it predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from priorkit.report.figures import INK, MUTED, WIDTH, drawing, legend, series_color, series_marker

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


_POINTS = 60


def slice_points(best: Floats, component: int, low: float, high: float) -> Floats:
    """Mixes along one component through a mix; the other shares are scaled to fill the rest.

    Args:
        best: float64 ``[components]``, adding up to 1.
        component: the share that varies.
        low, high: range of that share.

    Returns:
        float64 ``[points, components]``.
    """
    others = best.copy()
    others[component] = 0
    total = others.sum()
    # If the component is the entire mix, the others share the rest equally.
    others = (
        others / total if total > 0 else np.where(np.arange(len(best)) == component, 0.0, 1 / (len(best) - 1))
    )
    shares = np.linspace(low, high, _POINTS)
    points = (1 - shares)[:, None] * others
    points[:, component] = shares
    return points


def surface_slices(
    names: Sequence[str],
    shares: Floats,
    scores: Floats,
    best: Floats,
    bands: Callable[[Floats], tuple[Floats, Floats, Floats]],
    score: str,
) -> Figure:
    """The surface along each component through the best mix, a panel each, with the mixes that were tried.

    Args:
        names: of the components.
        shares: float64 ``[mixes, components]``, as tried.
        scores: float64 ``[mixes]``.
        best: float64 ``[components]``.
        bands: points -> value, low and high end of the interval, float64 ``[points]`` each.
        score: what the vertical axis shows.
    """
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    with drawing(0.5 + 2.3 * rows, columns, rows, WIDTH, share_y=True) as (figure, axes):
        for number, (axis, name) in enumerate(zip(axes, names, strict=False)):
            low, high = shares[:, number].min(), shares[:, number].max()
            margin = 0.1 * max(high - low, 0.02)
            points = slice_points(best, number, max(0.0, low - margin), min(1.0, high + margin))
            value, below, above = bands(points)
            axis.plot(
                points[:, number],
                value,
                color=series_color(0),
                linewidth=1.7,
                label="surface" if not number else None,
            )
            axis.fill_between(points[:, number], below, above, color=series_color(0), alpha=0.16, linewidth=0)
            axis.scatter(
                shares[:, number], scores, s=18, color=series_color(1), marker=series_marker(1), linewidths=0,
                label=None if number else "mixes tried",
            )  # fmt: skip
            axis.axvline(
                best[number],
                color=MUTED,
                linestyle=(0, (2, 2)),
                label=None if number else "best mix predicted",
            )
            axis.set_xlabel(f"share of {name}")
        for axis in axes[len(names) :]:
            axis.set_visible(False)
        for axis in axes[::columns]:
            axis.set_ylabel(score)
        legend(figure, axes[0])
    return figure


def predicted_scores(scores: Floats, predicted: Mapping[str, Floats], score: str) -> Figure:
    """Observed scores over leave-one-out predictions, a color per surface; the line is a perfect prediction.

    Args:
        scores: float64 ``[mixes]``.
        predicted: surface -> float64 ``[mixes]``.
        score: what the axes show.
    """
    with drawing(4.2, width=4.6) as (figure, (axis,)):
        ends = [scores.min(), scores.max()]
        axis.plot(ends, ends, color=MUTED, linestyle=(0, (2, 2)))
        for number, (name, values) in enumerate(predicted.items()):
            axis.scatter(
                values, scores, s=22, color=series_color(number), marker=series_marker(number), linewidths=0,
                label=name,
            )  # fmt: skip
        axis.set_xlabel(f"{score}, predicted from the other mixes")
        axis.set_ylabel(f"{score}, observed")
        axis.tick_params(labelcolor=INK)
        legend(figure, axis, columns=2)
    return figure
