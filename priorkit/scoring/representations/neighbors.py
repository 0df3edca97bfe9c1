"""Mutual nearest neighbors of two representations of the same items.

Sources: ``metrics.py`` of minyoungg/platonic-rep (dcd76ba; Huh et al., arXiv 2405.07987), which LSBS
(arXiv 2509.26625, section 7) follows with k = 20. Row i of one matrix and row i of the other belong to
the same item. The matrix of all pairs is never stored.
"""

from __future__ import annotations

# torch is only partly typed.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false
from collections.abc import Sequence

import torch
from torch import Tensor

from priorkit.core.errors import InputError

_SCORES = 1 << 24
"""Scores in memory at a time: 64 MB in float32 for any number of items."""


def nearest_neighbors(features: Tensor, k: int, *, block: int = 0) -> Tensor:
    """Rows with the largest cosine to each row, excluding itself: [items, k] int64, most similar first.

    Args:
        features: [items, width].
        k: neighbors, fewer than items.
        block: rows compared at a time; 0 for as many as fit 64 MB of scores.

    Raises:
        InputError: k is not between 1 and items - 1.
    """
    if not 1 <= k < len(features):
        raise InputError(f"k must lie between 1 and {len(features) - 1} for {len(features)} items, got {k}")
    unit = torch.nn.functional.normalize(_floating(features), dim=-1)
    block = block or max(1, _SCORES // len(unit))
    indices: list[Tensor] = []
    for start, rows in zip(range(0, len(unit), block), unit.split(block), strict=True):
        scores = rows @ unit.T
        row = torch.arange(len(rows), device=unit.device)
        scores[row, row + start] = -torch.inf
        indices.append(scores.topk(k, dim=1).indices)
    return torch.cat(indices)


def magnitude_quantile(parts: Sequence[Tensor], quantile: float) -> float:
    """The element at ``int(quantile * count)`` of the sorted absolute values of all parts: platonic-rep's exact mode.

    Nothing is sorted or concatenated, so that the parts may be memory-mapped: the bits of non-negative floats
    sort like the floats, and two histograms, of the upper and of the lower 16 bits, locate the element.

    Args:
        parts: float32 tensors of any shape; each is read twice (float64 is rounded).
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
        values = bits(part)
        lower += np.bincount(values[values >> 16 == high] & 0xFFFF, minlength=1 << 16)
    low = int(np.searchsorted(lower.cumsum(), index, side="right"))
    return float(np.array([high << 16 | low], dtype=np.uint32).view(np.float32)[0])


def neighbor_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Share of common neighbors of each item: float64 [items], from two [items, k] index matrices."""
    parts = zip(first.split(4096), second.split(4096), strict=True)
    common = [(a[:, :, None] == b[:, None, :]).any(2).sum(1) for a, b in parts]
    return torch.cat(common).double() / first.shape[1]


def _floating(features: Tensor) -> Tensor:
    features = features.detach()
    return features if features.dtype == torch.float64 else features.float()
