"""Tags from scores: thresholds, precision and recall, and synthetic tag noise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall over one threshold for all tags.

    Attributes:
        threshold, precision, recall: float64 ``[steps]``, thresholds ascending. Precision is 1 if
            nothing is tagged.
    """

    threshold: Scores
    precision: Scores
    recall: Scores


def best_threshold(scores: Scores, truth: Truth) -> tuple[float, float]:
    """The threshold with the largest F1, and that F1.

    An item is tagged if its score is *at least* the threshold. Of several equally good thresholds the
    highest is returned. Thresholds are halfway between two neighboring scores, which makes them robust to
    small changes of the scores.

    Args:
        scores: ``[items]``.
        truth: whether the tag is correct, ``[items]``; at least one is.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, hits = scores[order], np.cumsum(truth[order])
    tagged = np.arange(1, len(scores) + 1)
    # Equal scores are on the same side of any threshold.
    last = np.append(sorted_scores[1:] != sorted_scores[:-1], True)
    f1 = np.where(last, 2 * hits / (tagged + truth.sum()), -1.0)
    best = int(np.argmax(f1))
    below = sorted_scores[best + 1] if best + 1 < len(scores) else sorted_scores[best]
    return float((sorted_scores[best] + below) / 2), float(f1[best])


def calibrate_thresholds(scores: Scores, truth: Truth) -> Scores:
    """A threshold for each tag.

    Tags that are never or always correct get the best common threshold of all tags.

    Args:
        scores: ``[images, tags]``.
        truth: ``[images, tags]``; at least one is true.

    Returns:
        ``[tags]``.
    """
    shared, _ = best_threshold(scores.ravel(), truth.ravel())
    thresholds = np.full(scores.shape[1], shared)
    for tag in range(scores.shape[1]):
        if truth[:, tag].any() and not truth[:, tag].all():
            thresholds[tag], _ = best_threshold(scores[:, tag], truth[:, tag])
    return thresholds


def precision_recall(chosen: Truth, truth: Truth) -> tuple[float, float]:
    """Micro-averaged precision (1 if nothing is chosen) and recall (1 if nothing is true)."""
    hits = int((chosen & truth).sum())
    return hits / max(1, int(chosen.sum())) if chosen.any() else 1.0, hits / int(
        truth.sum()
    ) if truth.any() else 1.0


def precision_recall_curve(scores: Scores, truth: Truth, steps: int = 101) -> PrecisionRecallCurve:
    """Precision and recall at quantiles of the scores, one threshold for all tags."""
    thresholds = np.unique(np.quantile(scores, np.linspace(0, 1, steps)))
    pairs = [precision_recall(scores >= threshold, truth) for threshold in thresholds]
    return PrecisionRecallCurve(
        thresholds, np.array([precision for precision, _ in pairs]), np.array([recall for _, recall in pairs])
    )


def corrupt_tags(
    tags: Sequence[str], vocabulary: Sequence[str], drop: float, corrupt: float, seed: str
) -> list[str]:
    """Add noise to tags: each is independently dropped, or else replaced by a wrong one.

    Args:
        tags: the image's.
        vocabulary: wrong tags are drawn from it.
        drop: probability of dropping a tag.
        corrupt: probability of replacing a tag that was kept.
        seed: of this image's draws, which do not depend on other images.
    """
    rng = random.Random(seed)
    correct = set(tags)
    wrong = [tag for tag in vocabulary if tag not in correct]
    noisy: list[str] = []
    for tag in tags:
        dropped, replaced, other = rng.random() < drop, rng.random() < corrupt, rng.random()
        if not dropped:
            noisy.append(wrong[int(other * len(wrong))] if replaced and wrong else tag)
    return list(dict.fromkeys(noisy))
