"""An overview of rank-e: histograms of ranks, and example images of the worst-ranked entities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.data.images.decoding import BrokenImageError, decode
from priorkit.data.images.entities import EntityImages
from priorkit.report.figures import MUTED, drawing, footnote, log_ticks, series_color, to_png
from priorkit.report.numbers import plain

WORST = 10
"""Entities shown with an image each."""

_COLUMNS = 5
_SIDE = 224


def rank_overview(
    table: Mapping[str, Any], ranks: NDArray[np.float64], entities: EntityImages, candidates: int, by: str
) -> bytes:
    """A PNG: histograms of Rank_e over entities and of ranks over images, and the worst entities.

    Args:
        table: the columns of ``table.parquet``.
        ranks: [images] float64; NaN where an image was not ranked.
        entities: the images with their entities.
        candidates: number of candidates.
        by: what the images were ranked by, ``names`` or ``centroids``.
    """
    means = np.asarray(table["mean_rank"], dtype=np.float64)
    worst = sorted(range(len(means)), key=lambda row: (-means[row], table["entity"][row]))[:WORST]
    rows = 1 + -(-len(worst) // _COLUMNS)
    with drawing(2.6 + 1.9 * (rows - 1), _COLUMNS, rows) as (figure, axes):
        grid: Any = axes[0].get_gridspec()
        for axis in axes[:_COLUMNS]:
            axis.remove()
        top = figure.add_subplot(grid[0, :])
        edges = np.geomspace(1, max(candidates, 2), 31).tolist()
        values = {"entities (Rank_e)": means, "images": ranks[~np.isnan(ranks)]}
        for number, (label, ranked) in enumerate(values.items()):
            top.hist(
                ranked, bins=edges, weights=np.full(len(ranked), 1 / len(ranked)), histtype="stepfilled",
                alpha=0.5, color=series_color(number), label=label,
            )  # fmt: skip
        top.set_xscale("log")
        log_ticks(top)
        top.set_xlabel(f"rank of the true one among {candidates:,} {by}")
        top.set_ylabel("share")
        top.legend(frameon=False)
        for spine in top.spines.values():
            spine.set_visible(False)
        for axis, row in zip(axes[_COLUMNS:], worst, strict=False):
            _add_image(axis, table, row, entities)
        for axis in axes[_COLUMNS + len(worst) :]:
            axis.set_visible(False)
        footnote(
            figure, "A low rank is a strong prior. Below: the entities with the worst Rank_e, an image each."
        )
        return to_png(figure)


def _add_image(axis: Any, table: Mapping[str, Any], row: int, entities: EntityImages) -> None:
    name = table["entity"][row]
    axis.grid(False)
    axis.set_xticks([])
    axis.set_yticks([])
    first_image = entities.entity_of.index(entities.entities.index(name))
    try:
        image = decode(entities.images[first_image])
        image.thumbnail((_SIDE, _SIDE))
        axis.imshow(np.asarray(image))
    except BrokenImageError:
        axis.text(0.5, 0.5, "not readable", ha="center", va="center", color=MUTED, transform=axis.transAxes)
    axis.set_title(f"{_short(name)}\n{plain(float(table['mean_rank'][row]))}", fontsize=8)
    confused = table.get("confused_with")
    if confused is not None and len(confused[row]):
        axis.set_xlabel(f"like {_short(confused[row][0])}", fontsize=7.5, color=MUTED)


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:23] + "…"
