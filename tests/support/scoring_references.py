"""Scores in their plain forms, compared with official values and with what the package computes by sums or blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.scoring.answers.language_metrics import RollingText, bits_per_byte
from priorkit.scoring.answers.yes_no import YesNo
from priorkit.scoring.representations.neighbors import magnitude_quantile, nearest_neighbors, neighbor_overlap


@dataclass(frozen=True, slots=True)
class YesNoMetrics:
    """Counts and rates with yes as the positive class; a rate over nothing is 0."""

    true_positive: int
    false_positive: int
    true_negative: int
    false_negative: int

    @property
    def items(self) -> int:
        """Number of questions."""
        return self.true_positive + self.false_positive + self.true_negative + self.false_negative

    @property
    def accuracy(self) -> float:
        """Share of questions answered rightly."""
        return _share(self.true_positive + self.true_negative, self.items)

    @property
    def precision(self) -> float:
        """Share of yes readings that are right."""
        return _share(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of yes questions read as yes."""
        return _share(self.true_positive, self.true_positive + self.false_negative)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0

    @property
    def yes_ratio(self) -> float:
        """Share of answers read as yes (of the answers, not of the labels)."""
        return _share(self.true_positive + self.false_positive, self.items)


def yes_no_metrics(readings: Sequence[YesNo], labels: Sequence[YesNo]) -> YesNoMetrics:
    """Count readings against labels.

    Raises:
        InputError: the two differ in length.
    """
    if len(readings) != len(labels):
        raise InputError(f"{len(readings)} answers for {len(labels)} labels")
    pairs = list(zip(readings, labels, strict=True))
    return YesNoMetrics(
        true_positive=pairs.count(("yes", "yes")),
        false_positive=pairs.count(("yes", "no")),
        true_negative=pairs.count(("no", "no")),
        false_negative=pairs.count(("no", "yes")),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class LayerAlignment:
    """Score of every pair of layers; ``best`` is the largest and ``pair`` the first that reaches it."""

    scores: Tensor
    best: float
    pair: tuple[int, int]


def mutual_knn(x: Tensor, y: Tensor, k: int = 20, *, block: int = 0) -> float:
    """Mean share of the k nearest neighbors (by cosine, self excluded) that both spaces have in common.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.
        k: neighbors, fewer than items.
        block: rows compared at once; 0 takes as many as fit 64 MB of scores.

    Raises:
        InputError: the shapes do not fit, or k is not between 1 and items - 1.
    """
    _check(x, y, ndim=2)
    near = (nearest_neighbors(features, k, block=block) for features in (x, y))
    return float(neighbor_overlap(*near).mean())


def mutual_knn_layers(x: Tensor, y: Tensor, k: int = 20, *, block: int = 0) -> LayerAlignment:
    """Mutual nearest neighbors of every pair of layers.

    Args:
        x: [items, layers, width] features.
        y: [items, other layers, other width] features of the same items.
        k: neighbors, fewer than items.
        block: rows compared at once; 0 takes as many as fit 64 MB of scores.

    Returns:
        Scores [layers, other layers] float64 on the CPU, with their maximum as platonic-rep reports it.

    Raises:
        InputError: as :func:`mutual_knn`.
    """
    _check(x, y, ndim=3)
    of_x = [nearest_neighbors(layer, k, block=block) for layer in x.unbind(1)]
    of_y = [nearest_neighbors(layer, k, block=block) for layer in y.unbind(1)]
    scores = torch.stack([torch.stack([neighbor_overlap(a, b).mean() for b in of_y]) for a in of_x]).cpu()
    best = int(scores.flatten().argmax())
    return LayerAlignment(scores, float(scores.max()), divmod(best, scores.shape[1]))


def clamp_outliers(features: Tensor, quantile: float = 0.95) -> Tensor:
    """Clamp every entry to plus or minus the quantile of absolute values over all of them.

    The quantile is the element at ``int(quantile * count)`` of the sorted absolute values: platonic-rep's
    exact mode. Its default mode averages per-row quantiles instead. Features by layer are clamped as one.
    """
    values = features.float()
    bound = magnitude_quantile([values.flatten()], quantile)
    return values.clamp(-bound, bound)


def _check(x: Tensor, y: Tensor, ndim: int) -> None:
    shapes: Sequence[tuple[int, ...]] = (tuple(x.shape), tuple(y.shape))
    if x.ndim != ndim or y.ndim != ndim or len(x) != len(y):
        raise InputError(
            f"alignment needs {ndim}-D features of the same items, got {shapes[0]} and {shapes[1]}"
        )


@dataclass(frozen=True, slots=True)
class TextMetrics:
    """Corpus metrics: sums over all texts first, one division, then the exponential."""

    word_perplexity: float
    byte_perplexity: float
    bits_per_byte: float


def text_metrics(texts: Iterable[RollingText]) -> TextMetrics:
    """Corpus perplexities and bits per byte.

    Raises:
        InputError: there is no text, or only empty ones.
    """
    kept = list(texts)
    total = math.fsum(text.loglikelihood for text in kept)
    words, size = sum(text.words for text in kept), sum(text.bytes for text in kept)
    return TextMetrics(perplexity(total, words), perplexity(total, size), bits_per_byte(total, size))


def perplexity(loglikelihood: float, count: int) -> float:
    """``exp(-loglikelihood / count)``; infinite where that is too large for a float.

    Args:
        loglikelihood: sum of natural log-probabilities.
        count: of tokens, words or bytes, whatever the perplexity is to be per.

    Raises:
        InputError: the count is not positive.
    """
    try:
        return math.exp(bits_per_byte(loglikelihood, count) * math.log(2))
    except OverflowError:
        return math.inf
