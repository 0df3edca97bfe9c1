"""The IoU curve: how many boxes are right, over how much of the truth they have to overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from priorkit.core.interval import Interval
from priorkit.report.figures import drawing, legend, series_color, series_marker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def overlaps(curves: Mapping[str, Mapping[float, Interval]], colors: Sequence[int] = ()) -> Figure:
    """Accuracy over the threshold, a line with its 95 % band per evaluation.

    Args:
        curves: evaluation -> threshold -> accuracy.
        colors: the evaluations' series numbers; from 0 where not given.
    """
    with drawing(3.2, width=5.6) as (figure, (axis,)):
        numbers = colors or range(len(curves))
        for number, (label, curve) in zip(numbers, curves.items(), strict=True):
            color, x = series_color(number), list(curve)
            axis.fill_between(
                x, [own.low for own in curve.values()], [own.high for own in curve.values()], color=color,
                alpha=0.15, linewidth=0,
            )  # fmt: skip
            axis.plot(
                x, [own.value for own in curve.values()], color=color, marker=series_marker(number), markersize=4.5,
                linewidth=1.4, label=label,
            )  # fmt: skip
        axis.set_ylim(-0.02, 1.02)
        axis.set_xlabel("IoU that counts as right")
        axis.set_ylabel("accuracy")
        legend(figure, axis)
    return figure
