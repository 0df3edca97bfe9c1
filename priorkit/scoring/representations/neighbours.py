"""How alike two representations of the same items are: mutual nearest neighbours and linear CKA.

Sources: ``metrics.py`` of minyoungg/platonic-rep (dcd76ba; Huh et al., arXiv 2405.07987), which LSBS
(arXiv 2509.26625, section 7) follows with k = 20; Kornblith et al., arXiv 1905.00414, for linear CKA.
Row i of one matrix and row i of the other belong to the same item. No matrix of all pairs is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from priorkit.core.errors import InputError

_SCORES = 1 << 24
"""Scores of all pairs held at once: 64 MB in float32, whatever the number of items."""


@dataclass(frozen=True, slots=True)
class LayerAlignment:
    """Score of every pair of layers; ``best`` is the largest and ``pair`` the first that reaches it."""

    scores: Tensor
    best: float
    pair: tuple[int, int]


def mutual_knn(x: Tensor, y: Tensor, k: int = 20, *, block: int = 0) -> float:
    """Mean share of the k nearest neighbours (by cosine, self excluded) that both spaces have in common.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.
        k: neighbours, fewer than items.
        block: rows compared at once; 0 takes as many as fit 64 MB of scores.

    Raises:
        InputError: the shapes do not fit, or k does not lie between 1 and items - 1.
    """
    _check(x, y, ndim=2)
    near = (nearest_neighbours(features, k, block=block) for features in (x, y))
    return float(neighbour_overlap(*near).mean())


def mutual_knn_layers(x: Tensor, y: Tensor, k: int = 20, *, block: int = 0) -> LayerAlignment:
    """Mutual nearest neighbours of every pair of layers.

    Args:
        x: [items, layers, width] features.
        y: [items, other layers, other width] features of the same items.
        k: neighbours, fewer than items.
        block: rows compared at once; 0 takes as many as fit 64 MB of scores.

    Returns:
        Scores [layers, other layers] float64 on the CPU, with their maximum as platonic-rep reports it.

    Raises:
        InputError: as :func:`mutual_knn`.
    """
    _check(x, y, ndim=3)
    of_x = [nearest_neighbours(layer, k, block=block) for layer in x.unbind(1)]
    of_y = [nearest_neighbours(layer, k, block=block) for layer in y.unbind(1)]
    scores = torch.stack([torch.stack([neighbour_overlap(a, b).mean() for b in of_y]) for a in of_x]).cpu()
    best = int(scores.flatten().argmax())
    return LayerAlignment(scores, float(scores.max()), divmod(best, scores.shape[1]))


def nearest_neighbours(features: Tensor, k: int, *, block: int = 0) -> Tensor:
    """Rows with the largest cosine to each row, itself excluded: [items, k] int64, best first.

    Raises:
        InputError: k does not lie between 1 and items - 1.
    """
    if not 1 <= k < len(features):
        raise InputError(f"k must lie between 1 and {len(features) - 1} for {len(features)} items, got {k}")
    unit = torch.nn.functional.normalize(_floating(features), dim=-1)
    block = block or max(1, _SCORES // len(unit))
    found: list[Tensor] = []
    for start, rows in zip(range(0, len(unit), block), unit.split(block), strict=True):
        scores = rows @ unit.T
        own = torch.arange(len(rows), device=unit.device)
        scores[own, own + start] = -torch.inf
        found.append(scores.topk(k, dim=1).indices)
    return torch.cat(found)


def clamp_outliers(features: Tensor, quantile: float = 0.95) -> Tensor:
    """Clamp every entry to plus or minus the quantile of absolute values over all of them.

    The quantile is the element at ``int(quantile * count)`` of the sorted absolute values: platonic-rep's
    exact mode. Its default mode averages per-row quantiles instead. Features by layer are clamped as one.
    """
    values = _floating(features)
    bound = magnitude_quantile([values.flatten()], quantile)
    return values.clamp(-bound, bound)


def magnitude_quantile(parts: Sequence[Tensor], quantile: float) -> float:
    """The element at ``int(quantile * count)`` of the sorted absolute values of all parts together.

    Nothing is sorted or joined, so that the parts may be views of files: the bits of non-negative floats
    are ordered as the floats are, and two counts, of the upper and of the lower 16 bits, find the element.

    Args:
        parts: float32 tensors of any shape; each is looked at twice (float64 is rounded).
        quantile: 0 to 1.

    Raises:
        InputError: there is no value, or one is not finite.
    """
    import numpy as np

    def bits(part: Tensor) -> np.ndarray:
        magnitudes = np.abs(part.detach().cpu().float().numpy().ravel())
        return magnitudes.view(np.uint32)

    upper = np.zeros(1 << 16, dtype=np.int64)
    for part in parts:
        upper += np.bincount(bits(part) >> 16, minlength=1 << 16)
    total = int(upper.sum())
    if not total:
        raise InputError("there is no feature to take a quantile of")
    if upper[0x7F80:].any():
        raise InputError("a feature is not finite")
    index = min(int(quantile * total), total - 1)
    high = int(np.searchsorted(upper.cumsum(), index, side="right"))
    index -= int(upper[:high].sum())
    lower = np.zeros(1 << 16, dtype=np.int64)
    for part in parts:
        found = bits(part)
        lower += np.bincount(found[found >> 16 == high] & 0xFFFF, minlength=1 << 16)
    low = int(np.searchsorted(lower.cumsum(), index, side="right"))
    return float(np.array([high << 16 | low], dtype=np.uint32).view(np.float32)[0])


def neighbour_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Share of neighbours in common, item by item: [items] float64 of two [items, k] index matrices."""
    parts = zip(first.split(4096), second.split(4096), strict=True)
    common = [(a[:, :, None] == b[:, None, :]).any(2).sum(1) for a, b in parts]
    return torch.cat(common).double() / first.shape[1]


def _floating(features: Tensor) -> Tensor:
    features = features.detach()
    return features if features.dtype == torch.float64 else features.float()


def _check(x: Tensor, y: Tensor, ndim: int) -> None:
    shapes: Sequence[tuple[int, ...]] = (tuple(x.shape), tuple(y.shape))
    if x.ndim != ndim or y.ndim != ndim or len(x) != len(y):
        raise InputError(
            f"alignment needs {ndim}-D features of the same items, got {shapes[0]} and {shapes[1]}"
        )
