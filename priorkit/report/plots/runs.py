"""How things were made: loss curves, mixtures and label proportions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.report.figures import INK, PAPER, SERIES, WIDTH, drawing, legend, series_color

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LossCurve:
    """Training loss: x in steps, the raw and the smoothed values."""

    label: str
    x: ArrayLike
    raw: ArrayLike
    smooth: ArrayLike


def loss_curves(runs: Sequence[LossCurve], first_color: int = 0) -> Figure:
    """Loss over steps, a panel per training run: raw values in a pale, smoothed ones in a strong line."""
    columns = min(3, len(runs))
    rows = math.ceil(len(runs) / columns)
    width = {1: 5.0, 2: 7.4}.get(columns, WIDTH)
    with drawing(0.2 + 2.3 * rows, columns, rows, width) as (figure, axes):
        for number, (axis, curve) in enumerate(zip(axes, runs, strict=False), start=first_color):
            color = series_color(number)
            axis.plot(curve.x, curve.raw, color=color, alpha=0.28, linewidth=0.7)
            axis.plot(curve.x, curve.smooth, color=color, linewidth=1.7)
            axis.set_title(curve.label, fontsize=9, loc="left", color=INK)
            axis.locator_params(axis="x", nbins=5)
        for axis in axes[len(runs) :]:
            axis.set_visible(False)
        for axis in axes[max(0, len(runs) - columns) : len(runs)]:
            axis.set_xlabel("step")
        for axis in axes[::columns]:
            axis.set_ylabel("loss")
    return figure


def mixture_shares(corpora: Mapping[str, Mapping[str, float]]) -> Figure:
    """Mixtures as stacked bars: a bar per corpus, a color per source."""
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


_DARK = 0.55


def label_proportions(sources: Sequence[str], labels: Sequence[str], shares: ArrayLike, unit: str) -> Figure:
    """A heat map of label shares per source, as in the LSBS paper's Table 4: a row per source, a column per label.

    Args:
        sources: names of the rows, top to bottom.
        labels: names of the columns.
        shares: ``[sources, labels]``, 0 to 1.
        unit: what is counted, for the axis.
    """
    from matplotlib.colors import LinearSegmentedColormap

    values = np.asarray(shares, dtype=np.float64)
    colormap = LinearSegmentedColormap.from_list("shares", [PAPER, SERIES[0]])
    with drawing(1.3 + 0.34 * len(sources), width=WIDTH) as (figure, (axis,)):
        axis.imshow(values, cmap=colormap, vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*values.shape):
            share = values[row, column]
            axis.text(
                column, row, f"{100 * share:.1f}", ha="center", va="center", fontsize=8,
                color=PAPER if share > _DARK else INK,
            )  # fmt: skip
        axis.set_xticks(range(len(labels)), [label.replace("_", "\n") for label in labels])
        axis.xaxis.tick_top()
        axis.set_yticks(range(len(sources)), sources)
        axis.tick_params(labelcolor=INK)
        axis.grid(False)
        axis.set_xlabel(f"% of {unit}")
    return figure
