"""What choosing the best pair of layers does to mutual nearest neighbours: its interval, and its null distribution.

The maximum over hundreds of pairs of layers lies above chance even for unrelated representations, and above the true
value of the pair that it picks. So each resample chooses its own pair, and the null takes the maximum as the
measurement does. Sources: Westfall and Young, "Resampling-Based Multiple Testing" (1993), for the maximum under
permutation; Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 5.2, for the basic
interval, which subtracts the bias that resampling shows; Phipson and Smyth (2010) for p-values that are never zero.
"""

from __future__ import annotations

# torch is only partly typed, scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorkit.core.interval import Interval
from priorkit.scoring.representations.neighbors import neighbor_overlap
from priorkit.scoring.statistics.intervals import bootstrap_indices

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True)
class SelectedMaximum:
    """A maximum over pairs of layers.

    Attributes:
        interval: the maximum with its 95 % basic bootstrap interval, each resample with its own pair of layers. The
            interval is about the maximum without the bias of choosing, and may lie below the value.
        selection_bias: mean of the resamples' maxima minus the value: about what choosing adds to it.
        null_mean: mean of the maximum under permutations of the items.
        null_high: its 95 % quantile.
        p_value: of the value under permutations.
    """

    interval: Interval
    selection_bias: float
    null_mean: float
    null_high: float
    p_value: float


def layer_overlaps(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """Common neighbours of each item in each pair of layers, uint8 or int16 ``[items, layers, other layers]``.

    Args:
        first, second: neighbours int64 ``[items, k]`` of each layer, k the same.
    """
    k = first[0].shape[1]
    dtype = torch.uint8 if k < 256 else torch.int16
    overlaps = torch.empty(len(first[0]), len(first), len(second), dtype=dtype)
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            overlaps[:, row, column] = (neighbor_overlap(one, other) * k).round().to(dtype)
    return overlaps


def resampled_maxima(overlaps: Tensor, k: int, *, seed: int, resamples: int) -> Floats:
    """The maximum over pairs of layers in each bootstrap sample of the items, float64 ``[resamples]``.

    Args:
        overlaps: of :func:`layer_overlaps`.
        k: number of neighbours.
        seed: of the resampling; the same seed draws the same items.
        resamples: number of bootstrap samples.
    """
    items = len(overlaps)
    values = overlaps.flatten(1).float()
    maxima: list[Floats] = []
    for draw in bootstrap_indices(items, resamples, seed):
        offsets = np.arange(len(draw))[:, None] * items
        counts = np.bincount((draw + offsets).ravel(), minlength=len(draw) * items)
        weights = torch.from_numpy(counts.reshape(len(draw), items)).float()
        # Sums of whole numbers below 2^24 are exact in float32.
        maxima.append((weights @ values).max(1).values.double().numpy() / (items * k))
    return np.concatenate(maxima)


class LayerNeighbours:
    """The neighbours of all layers as one sparse matrix ``[layers, items * items]`` of zeros and ones.

    Args:
        neighbours: int64 ``[items, k]`` of each layer.
    """

    def __init__(self, neighbours: Sequence[Tensor]) -> None:
        self._indices = np.stack([layer.numpy() for layer in neighbours])  # [layers, items, k]
        self._k = self._indices.shape[2]

    @property
    def items(self) -> int:
        """Number of items."""
        return self._indices.shape[1]

    def matrix(self, order: NDArray[np.int64] | None = None) -> Any:
        """The matrix (scipy's CSR), the items renumbered by ``order`` where it is given."""
        from scipy.sparse import csr_matrix

        layers, items, k = self._indices.shape
        order = np.arange(items) if order is None else order
        columns = order[:, None] * items + order[self._indices]  # [layers, items, k]
        starts = np.arange(layers + 1) * items * k
        values = np.ones(layers * items * k, dtype=np.int32)
        return csr_matrix((values, columns.ravel(), starts), shape=(layers, items * items))

    def maximum(self, other: Any, order: NDArray[np.int64]) -> float:
        """The largest mean overlap with another's transposed matrix, the items renumbered."""
        return float((self.matrix(order) @ other).max()) / (self.items * self._k)


def permuted_maxima(
    first: Sequence[Tensor], others: Sequence[Sequence[Tensor]], *, seed: int, permutations: int
) -> Floats:
    """The maximum over pairs of layers where items are matched at random, float64 ``[permutations, others]``.

    Args:
        first: neighbours int64 ``[items, k]`` of each layer of one model.
        others: the same of other models; each permutation is the same for all of them.
        seed: of the permutations.
        permutations: their number.
    """
    texts = LayerNeighbours(first)
    transposed = [LayerNeighbours(other).matrix().T.tocsr() for other in others]
    generator = np.random.Generator(np.random.PCG64(seed))
    orders = (generator.permutation(texts.items) for _ in range(permutations))
    return np.array([[texts.maximum(other, order) for other in transposed] for order in orders])


def selected_maximum(value: float, resampled: Floats, permuted: Floats) -> SelectedMaximum:
    """Put a maximum, its resamples and its null together.

    Args:
        value: the maximum.
        resampled: float64 ``[resamples]``, of :func:`resampled_maxima`, averaged where the value is a mean of several.
        permuted: float64 ``[permutations]``, likewise of :func:`permuted_maxima`.
    """
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # Sums in another order may differ by rounding; a tie counts as reached.
    reached = int((permuted >= value - 1e-12).sum())
    return SelectedMaximum(
        Interval(value, 2 * value - float(high), 2 * value - float(low)),
        float(resampled.mean()) - value,
        float(permuted.mean()),
        float(np.quantile(permuted, LEVEL)),
        (1 + reached) / (1 + len(permuted)),
    )
