"""How much of what a model knows of an entity it uses when it sees the entity instead of reading its name.

Sources: the knowledge gap, PopVQA (Cohen et al., "Performance Gap in Entity Knowledge Extraction Across Modalities in
Vision Language Models", arXiv 2412.14133); correct given attempted, SimpleQA (Wei et al., arXiv 2411.04368).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.scoring.statistics.intervals import bootstrap_difference, bootstrap_mean


def knowledge_gap(
    named: ArrayLike,
    shown: ArrayLike,
    entities: Sequence[str],
    nameable: ArrayLike,
    *,
    seed: int,
    resamples: int = 1000,
) -> Interval:
    """Accuracy with the entity's name in the text minus accuracy with its image, over entities that the model can name.

        gap = mean(named - shown), over questions of entities with ``nameable``

    Entities that it cannot name are left out: there the image tells the model nothing to look up.

    Args:
        named: [questions] 0 or 1, answered right where the text names the entity.
        shown: [questions] 0 to 1, answered right where the image shows it; a mean over its images is allowed.
        entities: the entity of each question; entities are resampled.
        nameable: [questions] bool, whether the model can name the question's entity.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The gap with its 95 % interval; NaN where no entity can be named.

    Raises:
        InputError: the lengths differ.
    """
    kept = np.asarray(nameable, dtype=bool).ravel()
    first, second = np.asarray(named, dtype=np.float64).ravel(), np.asarray(shown, dtype=np.float64).ravel()
    if not len(first) == len(second) == len(kept) == len(entities):
        raise InputError(
            f"a knowledge gap needs the same questions, got {len(first)}, {len(second)}, {len(kept)}, {len(entities)}"
        )
    if not kept.any():
        return Interval(math.nan, math.nan, math.nan)
    clusters = [entity for entity, keep in zip(entities, kept, strict=True) if keep]
    return bootstrap_difference(first[kept], second[kept], seed=seed, clusters=clusters, resamples=resamples)


def correct_given_attempted(
    correct: ArrayLike,
    attempted: ArrayLike,
    clusters: Sequence[str],
    *,
    seed: int,
    resamples: int = 1000,
) -> Interval:
    """Share of right answers among those that attempt one: ``sum(correct) / sum(attempted)``.

    Args:
        correct: [answers] bool.
        attempted: [answers] bool; an abstention is no attempt.
        clusters: a key per answer; clusters are resampled.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        The share with its 95 % interval; NaN where nothing is attempted.

    Raises:
        InputError: an answer is correct that is not attempted, or the lengths differ.
    """
    right, tried = np.asarray(correct, dtype=bool).ravel(), np.asarray(attempted, dtype=bool).ravel()
    if not len(right) == len(tried) == len(clusters):
        raise InputError(f"got {len(right)} answers, {len(tried)} attempts and {len(clusters)} clusters")
    if (right & ~tried).any():
        raise InputError("an answer that is not attempted cannot be correct")
    if not tried.any():
        return Interval(math.nan, math.nan, math.nan)
    kept = [cluster for cluster, attempt in zip(clusters, tried, strict=True) if attempt]
    return bootstrap_mean(right[tried], seed=seed, clusters=kept, resamples=resamples)
