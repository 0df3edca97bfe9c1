"""What remediation gains and costs along the line from the original to the tuned weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from priorkit.core.interval import Interval
from priorkit.report.figures import (
    INK,
    MUTED,
    drawing,
    footnote,
    legend,
    log_ticks,
    series_color,
    series_marker,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


def trade_off(
    shares: Sequence[float],
    ranks: Mapping[str, Sequence[Interval]],
    retrieval: Sequence[Interval] | None,
    saved: float,
) -> Figure:
    """Rank_e on held-out images over the share of tuned weights, and against off-domain retrieval.

    Without held-out images: off-domain retrieval over the share.

    Args:
        shares: 0 is the original encoder, 1 the tuned one.
        ranks: group of entities -> its mean rank at each share; empty if no images were held out.
        retrieval: mean reciprocal rank on general pairs at each share, if measured.
        saved: the share that was saved.
    """
    if not ranks:
        return _cost_only(shares, retrieval or (), saved)
    panels = [np.asarray(shares, dtype=np.float64)]
    if retrieval is not None:
        panels.append(np.array([interval.value for interval in retrieval]))
    with drawing(3.4, len(panels), 1, 4.6 * len(panels), share_y=True) as (figure, axes):
        for axis, x in zip(axes, panels, strict=True):
            for number, (group, means) in enumerate(ranks.items()):
                _add_line(axis, x, means, number, group)
            axis.set_yscale("log")
            log_ticks(axis, "y")
            rings = [(x[i], means[i].value) for means in ranks.values() for i in _indices(shares, saved)]
            if rings:
                axis.scatter(
                    *zip(*rings, strict=True), s=90, facecolors="none", edgecolors=INK, label="saved"
                )
        axes[0].set_xlabel("share of the tuned weights")
        axes[0].set_ylabel("mean Rank_e, held-out images")
        if retrieval is not None:
            axes[1].set_xlabel("off-domain retrieval, mean reciprocal rank (high: kept)")
            top = max(ranks.values(), key=lambda means: means[0].value)
            for position, (share, x, rank) in enumerate(zip(shares, panels[1], top, strict=True)):
                # Alternately above and below: points of neighboring shares are close together.
                axes[1].annotate(f"{share:g}", (x, rank.value), xytext=(4, -11 if position % 2 else 5),
                                 textcoords="offset points", fontsize=8, color=MUTED)  # fmt: skip
        legend(figure, axes[0])
        footnote(figure, "low Rank_e: strong prior; bars: 95 % intervals over entities; numbers: the share")
    return figure


def _cost_only(shares: Sequence[float], retrieval: Sequence[Interval], saved: float) -> Figure:
    x = np.asarray(shares, dtype=np.float64)
    with drawing(3.4, width=4.6) as (figure, (axis,)):
        _add_line(axis, x, retrieval, 0, "retrieval")
        rings = [(x[i], retrieval[i].value) for i in _indices(shares, saved)]
        if rings:
            axis.scatter(*zip(*rings, strict=True), s=90, facecolors="none", edgecolors=INK, label="saved")
        axis.set_xlabel("share of the tuned weights")
        axis.set_ylabel("off-domain retrieval, MRR")
        legend(figure, axis)
        footnote(figure, "high: kept; bars: 95 % intervals over pairs")
    return figure


def _indices(shares: Sequence[float], saved: float) -> list[int]:
    return [i for i, share in enumerate(shares) if share == saved]


def _add_line(axis: Axes, x: np.ndarray, values: Sequence[Interval], series: int, label: str) -> None:
    """A line through values with their intervals."""
    y = np.array([interval.value for interval in values])
    low = np.array([interval.low for interval in values])
    high = np.array([interval.high for interval in values])
    color = series_color(series)
    axis.errorbar(x, y, yerr=np.clip([y - low, high - y], 0, None), color=color, ecolor=color, elinewidth=1,
                  marker=series_marker(series), markersize=4, linewidth=1.4, label=label)  # fmt: skip
