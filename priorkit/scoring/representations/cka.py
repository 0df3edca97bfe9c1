"""Linear centered kernel alignment (CKA), biased and unbiased, from sums over items.

Sources: Kornblith et al., arXiv 1905.00414, for linear CKA, ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centered features;
Song et al., "Feature Selection via Dependence Maximization" (JMLR 2012), equation 5, for the unbiased
estimator of HSIC, which Nguyen et al., arXiv 2010.15327, use instead. With few items, biased CKA grows with the
width of the features; the unbiased estimate is zero on average for unrelated features. The matrix of all
pairs of items is never computed: for linear kernels every term is a sum over items.
"""

from __future__ import annotations

# torch is only partly typed, scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval

_BLOCK = 4096
GROUPS = 20
"""Groups of items that the jackknife leaves out, one at a time."""


@dataclass(frozen=True)
class _CrossSums:
    """Sums over items of two sets of features x, y with squared norms a, b; all float64."""

    items: int
    xy: Tensor
    x: Tensor
    y: Tensor
    bx: Tensor
    ay: Tensor
    ab: float
    a: float
    b: float

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _CrossSums:
        a, b = x.square().sum(1), y.square().sum(1)
        return cls(
            len(x), x.T @ y, x.sum(0), y.sum(0), b @ x, a @ y, float(a @ b), float(a.sum()), float(b.sum())
        )

    def combined(self, other: _CrossSums, sign: int) -> _CrossSums:
        """Sums over both (sign 1), or over these items without the others (sign -1)."""
        names = ("items", "xy", "x", "y", "bx", "ay", "ab", "a", "b")
        return _CrossSums(*(getattr(self, name) + sign * getattr(other, name) for name in names))

    def biased(self) -> float:
        """Squared Frobenius norm of the centered cross-covariance, times the squared number of items."""
        return float((self.xy - torch.outer(self.x, self.y) / self.items).square().sum())

    def unbiased(self) -> float:
        """Unbiased HSIC times ``items (items - 3)``; kernels with zero diagonals (Song et al., equation 5)."""
        n = self.items
        trace = float(self.xy.square().sum()) - self.ab
        x_sum, y_sum = float(self.x @ self.x) - self.a, float(self.y @ self.y) - self.b
        product = float(self.x @ self.xy @ self.y - self.x @ self.bx - self.y @ self.ay) + self.ab
        return trace + x_sum * y_sum / ((n - 1) * (n - 2)) - 2 * product / (n - 2)


def cka_interval(x: Tensor, y: Tensor, *, unbiased: bool, level: float = 0.95) -> Interval:
    """Linear CKA in float64, with an interval by the delete-a-group jackknife over items (normal approximation).

    A bootstrap would be biased: a repeated item is its own nearest neighbor, which raises the similarity.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.
        unbiased: use the unbiased estimate of HSIC; the value may then be negative.
        level: coverage of the interval.

    Returns:
        0 to 1 (at most 1 if unbiased); 0 if a representation is constant. NaN ends with too few items.

    Raises:
        InputError: the shapes do not fit, or there are fewer than four items.
    """
    from scipy.stats import norm

    totals = _pair_sums(x, y)
    value = _cka(totals, unbiased)
    groups = min(GROUPS, len(x) // 2)
    left_out: list[float] = []
    for number in range(groups if len(x) - len(x) // groups >= 4 else 0):
        rows = torch.arange(number, len(x), groups, device=x.device)
        parts = _pair_sums(x, y, rows)
        rest = [total.combined(part, -1) for total, part in zip(totals, parts, strict=True)]
        left_out.append(_cka(rest, unbiased))
    if len(left_out) < 2:
        return Interval(value, math.nan, math.nan)
    mean = math.fsum(left_out) / len(left_out)
    spread = (
        math.fsum((value_without - mean) ** 2 for value_without in left_out)
        * (len(left_out) - 1)
        / len(left_out)
    )
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(spread)
    return Interval(value, value - half, min(1.0, value + half))


def _pair_sums(x: Tensor, y: Tensor, rows: Tensor | None = None) -> list[_CrossSums]:
    """Sums of x with y, of x with itself, of y with itself."""
    return [_cross_sums(*pair, rows) for pair in ((x, y), (x, x), (y, y))]


def _cka(sums: list[_CrossSums], unbiased: bool) -> float:
    cross, first, second = (terms.unbiased() if unbiased else terms.biased() for terms in sums)
    return cross / math.sqrt(first * second) if first > 0 and second > 0 else 0.0


def _cross_sums(x: Tensor, y: Tensor, rows: Tensor | None = None) -> _CrossSums:
    """Sums over all items, or the given rows, of centered features; centering changes neither estimate."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(
            f"CKA needs 2-D features of the same items, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) < 4:
        raise InputError(f"CKA needs at least four items, got {len(x)}")
    means = _mean(x), _mean(y)
    total: _CrossSums | None = None
    for part in _parts(len(x), rows):
        sums = _CrossSums.of(*(_centered(v[part], mean) for v, mean in zip((x, y), means, strict=True)))
        total = sums if total is None else total.combined(sums, 1)
    if total is None:
        raise InputError("there is no item")
    return total


def _centered(values: Tensor, mean: Tensor) -> Tensor:
    """Differences from the mean in float64; rounding errors of a constant column become zero."""
    centered = values.double() - mean
    return torch.where(centered.abs() <= 1e-12 * mean.abs(), 0.0, centered)


def _mean(values: Tensor) -> Tensor:
    return torch.stack([part.double().sum(0) for part in values.split(_BLOCK)]).sum(0) / len(values)


def _parts(items: int, rows: Tensor | None) -> Iterator[slice | Tensor]:
    if rows is None:
        for start in range(0, items, _BLOCK):
            yield slice(start, start + _BLOCK)
    else:
        yield from rows.split(_BLOCK)
