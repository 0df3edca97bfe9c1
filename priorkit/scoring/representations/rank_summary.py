"""Rank_e per entity and overall, from ranks of images.

Rank_e of an entity is the mean rank of its true name over its images; the percentile
``(Rank_e - 1) / (candidates - 1)`` compares candidate sets of different sizes. A *low* rank is a *strong*
prior. Reconstructed from the description in VisPRE (arXiv 2503.18034).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_mean

Floats = NDArray[np.float64]

SIGN_CONVENTION = (
    "A low mean rank is a strong prior: a negative correlation means that what the encoder knows is "
    "answered better."
)
"""Written on every output that relates Rank_e to accuracy."""

RANK_MEASURES = ("mean_rank", "percentile", "mean_log_rank", "mrr", "recall_at_1", "recall_at_5")
"""Rank_e and its variants, in every table of ranks; of the last three, high is a strong prior."""

OPTIONAL_RANK_MEASURES = ("median_rank", "reverse_mean_rank")
"""Variants that a table of ranks may have; low is a strong prior."""


@dataclass(frozen=True, slots=True)
class EntityRanks:
    """One value per entity, entities in the order of their first image.

    Attributes:
        entity: names.
        images: number of images.
        mean_rank: Rank_e.
        percentile: 0 (always first) to 1 (always last).
        mean_log_rank: mean natural logarithm of the rank.
        mrr: mean of 1 / rank.
        recall_at_1: share of images with rank <= 1 (a shared first place, 1.5, does not count).
        recall_at_5: share of images with rank <= 5.
        median_rank: median rank, robust to a single outlying image.
    """

    entity: list[str]
    images: NDArray[np.int64]
    mean_rank: Floats
    percentile: Floats
    mean_log_rank: Floats
    mrr: Floats
    recall_at_1: Floats
    recall_at_5: Floats
    median_rank: Floats

    def columns(self) -> dict[str, list[str] | NDArray[np.int64] | Floats]:
        """All columns by name, in the order of ``table.parquet``."""
        return {name: getattr(self, name) for name in ("entity", "images", *RANK_MEASURES, "median_rank")}


def summarize_ranks(ranks: Floats, entities: Sequence[str], candidates: int) -> EntityRanks:
    """Average the ranks of images by entity.

    Args:
        ranks: [images] float64, from :func:`priorkit.scoring.representations.ranks.true_ranks`.
        entities: the entity of each image.
        candidates: number of candidate names.

    Raises:
        InputError: there is no image, or the lengths differ.
    """
    ranks = np.asarray(ranks, dtype=np.float64)
    if not len(ranks) or len(ranks) != len(entities):
        raise InputError(f"{len(ranks)} ranks for {len(entities)} entity names")
    names = list(dict.fromkeys(entities))
    row = {name: index for index, name in enumerate(names)}
    group = np.array([row[name] for name in entities])
    images = np.bincount(group)

    def mean(values: Floats | NDArray[np.bool_]) -> Floats:
        return np.bincount(group, weights=values) / images

    mean_rank = mean(ranks)
    return EntityRanks(
        entity=names,
        images=images.astype(np.int64),
        mean_rank=mean_rank,
        percentile=(mean_rank - 1) / max(candidates - 1, 1),
        mean_log_rank=mean(np.log(ranks)),
        mrr=mean(1 / ranks),
        recall_at_1=mean(ranks <= 1),
        recall_at_5=mean(ranks <= 5),
        median_rank=_medians(ranks, group, images),
    )


def _medians(ranks: Floats, group: NDArray[np.int64], images: NDArray[np.int64]) -> Floats:
    """Median of each group's ranks; the mean of the middle two if their number is even."""
    ordered = ranks[np.lexsort((ranks, group))]
    starts = np.cumsum(images) - images
    return (ordered[starts + (images - 1) // 2] + ordered[starts + images // 2]) / 2


def overall_ranks(
    summary: EntityRanks, *, seed: int, resamples: int = 1000, level: float = 0.95
) -> dict[str, Interval]:
    """Mean of each measure over entities, with a bootstrap interval over entities."""
    return {
        field.name: bootstrap_mean(getattr(summary, field.name), seed=seed, resamples=resamples, level=level)
        for field in fields(EntityRanks)
        if field.name not in ("entity", "images")
    }
