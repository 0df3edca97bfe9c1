"""The map of a diagnosis: entities by the strength of encoder and language model, colored by accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from priorkit.report.figures import INK, drawing, jitter, legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_MARKERS = ("o", "s", "^", "D", "v", "P")
_COLORS = "viridis"


def entity_map(
    encoder: ArrayLike,
    language: ArrayLike,
    accuracy: ArrayLike,
    verdicts: Sequence[str],
    order: Sequence[str],
    axes: tuple[str, str],
) -> Figure:
    """A dot per entity, whose form is its verdict and whose color its accuracy.

    Args:
        encoder: ``[entities]`` strength of the encoder; equal values are jittered.
        language: ``[entities]`` strength of the language model.
        accuracy: ``[entities]``, 0 to 1.
        verdicts: of each entity.
        order: all verdicts, which fixes their forms.
        axes: what the two axes show.
    """
    x, y = np.asarray(encoder, dtype=np.float64), np.asarray(language, dtype=np.float64)
    colors = np.asarray(accuracy, dtype=np.float64)
    x = x + 0.008 * jitter(len(x))
    points = None
    with drawing(4.6) as (figure, (axis,)):
        for number, verdict in enumerate(order):
            shown = np.array([given == verdict for given in verdicts], dtype=bool)
            if not shown.any():
                continue
            points = axis.scatter(
                x[shown], y[shown], c=colors[shown], cmap=_COLORS, vmin=0, vmax=1, s=26, alpha=0.85,
                marker=_MARKERS[number % len(_MARKERS)], linewidths=0.3, edgecolors=INK, label=verdict,
            )  # fmt: skip
        axis.set_xlabel(axes[0])
        axis.set_ylabel(axes[1])
        if points is not None:
            figure.colorbar(points, ax=axis, label="accuracy of the entity")
        legend(figure, axis)
    return figure
