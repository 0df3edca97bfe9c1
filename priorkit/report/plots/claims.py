"""Effects of claims with their intervals, against zero and the smallest effect of interest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from priorkit.core.interval import Interval
from priorkit.data.results.claim_results import MeasuredEffect
from priorkit.report.figures import GRID, INK, MUTED, PAPER, SERIES, WIDTH, drawing, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = MappingProxyType({"supported": SERIES[2], "contradicted": SERIES[7], "undecided": SERIES[4]})
_MARKERS = MappingProxyType({"supported": "o", "contradicted": "X", "undecided": "D"})
_RANGE = (-3.0, 6.0)
"""What the overview shows, in smallest effects of interest; what lies beyond gets an arrow."""


def overview(rows: Sequence[tuple[str, MeasuredEffect]]) -> Figure:
    """All effects in one scale: divided by the smallest effect of interest, which so is 1 for all.

    Args:
        rows: name and effect, top to bottom.
    """
    with drawing(0.75 + 0.3 * len(rows), width=WIDTH * 0.86) as (figure, (axis,)):
        axis.axvspan(1, _RANGE[1] + 1, color=SERIES[2], alpha=0.07, linewidth=0)
        axis.axvline(0, color=MUTED, linewidth=1)
        axis.axvline(1, color=SERIES[2], linewidth=1, linestyle=(0, (4, 3)))
        for row, (_, measured) in enumerate(rows):
            unit = measured.smallest or 1.0
            scaled = Interval(
                *(x / unit for x in (measured.effect.value, measured.effect.low, measured.effect.high))
            )
            _interval(axis, row, scaled, measured.verdict or "", size=5.5)
            _beyond(axis, row, scaled, measured.verdict or "")
        for verdict in dict.fromkeys(measured.verdict or "" for _, measured in rows):
            axis.plot(
                [], [], color=_COLORS.get(verdict, MUTED), marker=_MARKERS.get(verdict, "o"), markersize=5.5,
                linewidth=2.2, label=verdict,
            )  # fmt: skip
        legend(figure, axis)
        axis.set_yticks(range(len(rows)), [name for name, _ in rows])
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(_RANGE[0] - 0.25, _RANGE[1] + 0.25)
        axis.grid(False, axis="y")
        axis.tick_params(axis="y", labelcolor=INK)
        axis.set_xlabel("effect \N{DIVISION SIGN} smallest effect of interest")
        for row in range(1, len(rows)):
            axis.axhline(row - 0.5, color=GRID, linewidth=0.6)
    return figure


def effect_figure(measured: MeasuredEffect) -> Figure:
    """One effect in its own unit: the interval, each seed's value, 0, and the smallest effect of interest."""
    effect, smallest = measured.effect, measured.smallest or 0.0
    seeds = list(measured.per_seed.values())
    shown = [x for x in (0.0, smallest, effect.value, effect.low, effect.high, *seeds) if math.isfinite(x)]
    low, high = min(shown), max(shown)
    margin = 0.07 * (high - low or 1.0)
    with drawing(0.58, width=3.35) as (figure, (axis,)):
        axis.axvspan(smallest, high + 2 * margin, color=SERIES[2], alpha=0.09, linewidth=0)
        axis.axvline(0, color=MUTED, linewidth=1)
        axis.axvline(smallest, color=SERIES[2], linewidth=1, linestyle=(0, (4, 3)))
        axis.plot(
            seeds,
            [0.62] * len(seeds),
            linestyle="none",
            marker="|",
            markersize=5,
            markeredgewidth=1.1,
            color=MUTED,
        )
        _interval(axis, 0, effect, measured.verdict or "", size=6.5)
        axis.set_ylim(1.0, -0.75)
        axis.set_xlim(low - margin, high + margin)
        axis.grid(False)
        axis.set_yticks([])
        # The two labels would overlap where the smallest effect is a small part of what is shown.
        near = smallest < 0.16 * (high - low + 2 * margin)
        axis.set_xticks([0.0, smallest], ["0  ", f"  {smallest:g}"] if near else ["0", f"{smallest:g}"])
        if near:
            left, right = axis.get_xticklabels()
            left.set_horizontalalignment("right")
            right.set_horizontalalignment("left")
        axis.tick_params(axis="x", labelsize=7.5, pad=2)
    return figure


def _interval(axis: Axes, row: float, effect: Interval, verdict: str, size: float) -> None:
    color = _COLORS.get(verdict, MUTED)
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        axis.plot([effect.low, effect.high], [row, row], color=color, linewidth=2.2, solid_capstyle="round")
    if math.isfinite(effect.value):
        axis.plot(
            [effect.value], [row], marker=_MARKERS.get(verdict, "o"), markersize=size, color=color,
            markeredgecolor=PAPER, markeredgewidth=0.8, linestyle="none",
        )  # fmt: skip


def _beyond(axis: Axes, row: float, effect: Interval, verdict: str) -> None:
    """Arrows where an interval leaves the picture."""
    style: dict[str, Any] = {"color": _COLORS.get(verdict, MUTED), "markersize": 5, "linestyle": "none"}
    if effect.low < _RANGE[0]:
        axis.plot([_RANGE[0] - 0.1], [row], marker="<", **style)
    if effect.high > _RANGE[1]:
        axis.plot([_RANGE[1] + 0.1], [row], marker=">", **style)
