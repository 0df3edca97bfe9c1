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

_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class LayerAlignment:
    """Score of every pair of layers; ``best`` is the largest and ``pair`` the first that reaches it."""

    scores: Tensor
    best: float
    pair: tuple[int, int]


def mutual_knn(x: Tensor, y: Tensor, k: int = 20, *, block: int = _BLOCK) -> float:
    """Mean share of the k nearest neighbours (by cosine, self excluded) that both spaces have in common.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.
        k: neighbours, fewer than items.
        block: rows compared at once.

    Raises:
        InputError: the shapes do not fit, or k does not lie between 1 and items - 1.
    """
    _check(x, y, ndim=2)
    return float(
        _overlap(nearest_neighbours(x, k, block=block), nearest_neighbours(y, k, block=block), block)
    )


def mutual_knn_layers(x: Tensor, y: Tensor, k: int = 20, *, block: int = _BLOCK) -> LayerAlignment:
    """Mutual nearest neighbours of every pair of layers.

    Args:
        x: [items, layers, width] features.
        y: [items, other layers, other width] features of the same items.
        k: neighbours, fewer than items.
        block: rows compared at once.

    Returns:
        Scores [layers, other layers] float64 on the CPU, with their maximum as platonic-rep reports it.

    Raises:
        InputError: as :func:`mutual_knn`.
    """
    _check(x, y, ndim=3)
    of_x = [nearest_neighbours(layer, k, block=block) for layer in x.unbind(1)]
    of_y = [nearest_neighbours(layer, k, block=block) for layer in y.unbind(1)]
    scores = torch.stack([torch.stack([_overlap(a, b, block) for b in of_y]) for a in of_x]).cpu()
    best = int(scores.flatten().argmax())
    return LayerAlignment(scores, float(scores.max()), divmod(best, scores.shape[1]))


def nearest_neighbours(features: Tensor, k: int, *, block: int = _BLOCK) -> Tensor:
    """Rows with the largest cosine to each row, itself excluded: [items, k] int64, best first.

    Raises:
        InputError: k does not lie between 1 and items - 1.
    """
    if not 1 <= k < len(features):
        raise InputError(f"k must lie between 1 and {len(features) - 1} for {len(features)} items, got {k}")
    unit = torch.nn.functional.normalize(_floating(features), dim=-1)
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
    magnitudes = values.abs().flatten()
    index = min(int(quantile * len(magnitudes)), len(magnitudes) - 1)
    bound = magnitudes.kthvalue(index + 1).values
    return values.clamp(-bound, bound)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment, ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred features, in float64.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.

    Returns:
        0 to 1; 0 where a representation does not vary at all.

    Raises:
        InputError: the shapes do not fit.
    """
    _check(x, y, ndim=2)
    first, second = (features.detach().double() - features.double().mean(0) for features in (x, y))
    cross = (second.T @ first).square().sum()
    scale = torch.linalg.matrix_norm(first.T @ first) * torch.linalg.matrix_norm(second.T @ second)
    return float(cross / scale) if scale > 0 else 0.0


def _overlap(first: Tensor, second: Tensor, block: int) -> Tensor:
    """Mean share of common entries in the rows of two index matrices [items, k]."""
    items, k = first.shape
    common = torch.zeros((), dtype=torch.float64, device=first.device)
    for a, b in zip(first.split(block), second.split(block), strict=True):
        member = torch.zeros(len(a), items, dtype=torch.bool, device=a.device).scatter_(1, a, value=True)
        common += member.gather(1, b).sum()
    return common / (items * k)


def _floating(features: Tensor) -> Tensor:
    features = features.detach()
    return features if features.dtype == torch.float64 else features.float()


def _check(x: Tensor, y: Tensor, ndim: int) -> None:
    shapes: Sequence[tuple[int, ...]] = (tuple(x.shape), tuple(y.shape))
    if x.ndim != ndim or y.ndim != ndim or len(x) != len(y):
        raise InputError(
            f"alignment needs {ndim}-D features of the same items, got {shapes[0]} and {shapes[1]}"
        )
