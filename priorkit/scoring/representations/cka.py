"""Linear centred kernel alignment, plain and unbiased, from sums over items alone.

Sources: Kornblith et al., arXiv 1905.00414, for linear CKA, ``|Y'X|^2 / (|X'X| |Y'Y|)`` of centred features;
Song et al., "Feature Selection via Dependence Maximization" (JMLR 2012), equation 5, for the unbiased
estimator of HSIC, which Nguyen et al., arXiv 2010.15327, put in its place. Plain CKA grows with the width
of the features when there are few items; the unbiased one is zero on average for unrelated features.
No matrix of all pairs of items is made: for linear kernels every term is a sum over items.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval

_BLOCK = 4096
GROUPS = 20
"""Groups of items that the jackknife leaves out in turn."""


@dataclass(frozen=True)
class _Sums:
    """Sums over items of two sets of features x, y with squared lengths a, b; all float64."""

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
    def of(cls, x: Tensor, y: Tensor) -> _Sums:
        a, b = x.square().sum(1), y.square().sum(1)
        return cls(
            len(x), x.T @ y, x.sum(0), y.sum(0), b @ x, a @ y, float(a @ b), float(a.sum()), float(b.sum())
        )

    def combined(self, other: _Sums, sign: int) -> _Sums:
        """Sums over both (sign 1), or over these items without the others (sign -1)."""
        names = ("items", "xy", "x", "y", "bx", "ay", "ab", "a", "b")
        return _Sums(*(getattr(self, name) + sign * getattr(other, name) for name in names))

    def plain(self) -> float:
        """Squared Frobenius norm of the centred cross-covariance, times the items squared."""
        return float((self.xy - torch.outer(self.x, self.y) / self.items).square().sum())

    def unbiased(self) -> float:
        """Unbiased HSIC times ``items (items - 3)``; kernels without their diagonals (Song et al., equation 5)."""
        n = self.items
        trace = float(self.xy.square().sum()) - self.ab
        x_sum, y_sum = float(self.x @ self.x) - self.a, float(self.y @ self.y) - self.b
        product = float(self.x @ self.xy @ self.y - self.x @ self.bx - self.y @ self.ay) + self.ab
        return trace + x_sum * y_sum / ((n - 1) * (n - 2)) - 2 * product / (n - 2)


def linear_cka(x: Tensor, y: Tensor, *, unbiased: bool = False) -> float:
    """Linear CKA in float64.

    Args:
        x: [items, width] features.
        y: [items, other width] features of the same items.
        unbiased: estimate HSIC without the bias of few items; the value may then be negative.

    Returns:
        0 to 1, up to 1 if unbiased; 0 where a representation does not vary at all.

    Raises:
        InputError: the shapes do not fit, or there are fewer than four items.
    """
    return _ratio(_totals(x, y), unbiased)


def cka_interval(x: Tensor, y: Tensor, *, unbiased: bool, level: float = 0.95) -> Interval:
    """Linear CKA with an interval by the delete-a-group jackknife over items, normal approximation.

    A bootstrap would not do: a repeated item is its own nearest neighbour and raises the similarity.

    Raises:
        InputError: as :func:`linear_cka`.
    """
    from scipy.stats import norm

    whole = _totals(x, y)
    value = _ratio(whole, unbiased)
    groups = min(GROUPS, len(x) // 2)
    left_out = []
    for number in range(groups if len(x) - len(x) // groups >= 4 else 0):
        rows = torch.arange(number, len(x), groups, device=x.device)
        parts = _totals(x, y, rows)
        rest = [total.combined(part, -1) for total, part in zip(whole, parts, strict=True)]
        left_out.append(_ratio(rest, unbiased))
    if len(left_out) < 2:
        return Interval(value, math.nan, math.nan)
    mean = math.fsum(left_out) / len(left_out)
    spread = math.fsum((found - mean) ** 2 for found in left_out) * (len(left_out) - 1) / len(left_out)
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt(spread)
    return Interval(value, value - half, min(1.0, value + half))


def _totals(x: Tensor, y: Tensor, rows: Tensor | None = None) -> list[_Sums]:
    """Sums of x with y, of x with itself, of y with itself."""
    return [_total(*pair, rows) for pair in ((x, y), (x, x), (y, y))]


def _ratio(sums: list[_Sums], unbiased: bool) -> float:
    cross, own, other = (found.unbiased() if unbiased else found.plain() for found in sums)
    return cross / math.sqrt(own * other) if own > 0 and other > 0 else 0.0


def _total(x: Tensor, y: Tensor, rows: Tensor | None = None) -> _Sums:
    """Sums over all items, or over some, of features moved to their mean, which changes neither estimate."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise InputError(
            f"CKA needs 2-D features of the same items, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if len(x) < 4:
        raise InputError(f"CKA needs at least four items, got {len(x)}")
    means = _mean(x), _mean(y)
    total: _Sums | None = None
    for part in _parts(len(x), rows):
        found = _Sums.of(*(_centred(v[part], mean) for v, mean in zip((x, y), means, strict=True)))
        total = found if total is None else total.combined(found, 1)
    if total is None:
        raise InputError("there is no item")
    return total


def _centred(values: Tensor, mean: Tensor) -> Tensor:
    """Differences from the mean in float64; what rounding leaves of a constant column is no variation."""
    rest = values.double() - mean
    return torch.where(rest.abs() <= 1e-12 * mean.abs(), 0.0, rest)


def _mean(values: Tensor) -> Tensor:
    return torch.stack([part.double().sum(0) for part in values.split(_BLOCK)]).sum(0) / len(values)


def _parts(items: int, rows: Tensor | None) -> Iterator[slice | Tensor]:
    if rows is None:
        for start in range(0, items, _BLOCK):
            yield slice(start, start + _BLOCK)
    else:
        yield from rows.split(_BLOCK)
