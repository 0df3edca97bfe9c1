"""Tags from scores: a threshold per tag, precision and recall over thresholds, noise for experiments."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Sweep:
    """Precision and recall over one threshold for all tags.

    Attributes:
        threshold, precision, recall: float64 ``[steps]``, thresholds ascending. Precision is 1 where
            nothing is tagged.
    """

    threshold: Scores
    precision: Scores
    recall: Scores


def best_threshold(scores: Scores, truth: Truth) -> tuple[float, float]:
    """The threshold of the largest F1, and that F1.

    A thing is tagged where its score is *at least* the threshold. Of several equally good ones the
    highest is taken. Thresholds lie half-way between two neighbouring scores, so that they hold for
    scores which are a little off.

    Args:
        scores: ``[items]``.
        truth: whether the tag is right; at least one is.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(truth[order])
    taken = np.arange(1, len(scores) + 1)
    # Equal scores are taken together.
    last = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    f1 = np.where(last, 2 * hits / (taken + truth.sum()), -1.0)
    best = int(np.argmax(f1))
    below = sorted_scores[best + 1] if best + 1 < len(scores) else sorted_scores[best]
    return float((sorted_scores[best] + below) / 2), float(f1[best])


def calibrate(scores: Scores, truth: Truth) -> Scores:
    """A threshold for each tag.

    Tags that are never right here, or always, get the threshold that is best for all tags together.

    Args:
        scores: ``[images, tags]``.
        truth: of the same shape; right somewhere.

    Returns:
        ``[tags]``.
    """
    shared, _ = best_threshold(scores.ravel(), truth.ravel())
    found = np.full(scores.shape[1], shared)
    for tag in range(scores.shape[1]):
        if truth[:, tag].any() and not truth[:, tag].all():
            found[tag], _ = best_threshold(scores[:, tag], truth[:, tag])
    return found


def precision_recall(chosen: Truth, truth: Truth) -> tuple[float, float]:
    """Micro-averaged precision (1 where nothing is chosen) and recall (1 where nothing is right)."""
    hits = int((chosen & truth).sum())
    return hits / max(1, int(chosen.sum())) if chosen.any() else 1.0, hits / int(
        truth.sum()
    ) if truth.any() else 1.0


def sweep(scores: Scores, truth: Truth, steps: int = 101) -> Sweep:
    """Precision and recall at quantiles of the scores, one threshold for all tags."""
    thresholds = np.unique(np.quantile(scores, np.linspace(0, 1, steps)))
    pairs = [precision_recall(scores >= threshold, truth) for threshold in thresholds]
    return Sweep(thresholds, np.array([own[0] for own in pairs]), np.array([own[1] for own in pairs]))


def disturb(
    tags: Sequence[str], vocabulary: Sequence[str], drop: float, corrupt: float, seed: str
) -> list[str]:
    """Imperfect tags: each is dropped, or else replaced by a wrong one, independently.

    Args:
        tags: the image's.
        vocabulary: where wrong tags are drawn from.
        drop: probability of dropping a tag.
        corrupt: probability of replacing a tag that was kept.
        seed: of this image's draws, so that they depend on no other image.
    """
    rng = random.Random(seed)
    own = set(tags)
    wrong = [tag for tag in vocabulary if tag not in own]
    found: list[str] = []
    for tag in tags:
        dropped, replaced, other = rng.random() < drop, rng.random() < corrupt, rng.random()
        if not dropped:
            found.append(wrong[int(other * len(wrong))] if replaced and wrong else tag)
    return list(dict.fromkeys(found))
