"""Searching mixtures for the best one under a response surface, and for the one to try next.

Source: Huang, Allen, Notz and Zeng, "Global Optimization of Stochastic Black-Box Systems via Sequential Kriging"
(2006), for expected improvement with noisy scores.
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.scoring.statistics.response_surface import Floats, Surface

_MAX_CANDIDATES = 4096
_ROUNDS = 12


@dataclass(frozen=True)
class Region:
    """The set of mixes that is searched.

    Attributes:
        corners: float64 ``[corners, components]``; every mix of the region is a convex combination of them.
        low, high: float64 ``[components]``, additional bounds on shares.
    """

    corners: Floats
    low: Floats
    high: Floats

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """Which points satisfy the bounds."""
        inside = (points >= self.low - 1e-9) & (points <= self.high + 1e-9)
        return np.asarray(inside.all(1))


def maximize(
    value: Callable[[Floats], Floats], region: Region, starts: Floats, *, seed: int
) -> tuple[Floats, float]:
    """The point of a region with the largest value, by a seeded random search with shrinking steps.

    Args:
        value: points float64 ``[points, components]`` -> float64 ``[points]``.
        region: where to search.
        starts: points to evaluate in addition to random ones, such as the mixes that were tried.
        seed: of the random points.

    Returns:
        The point float64 ``[components]`` and its value.

    Raises:
        InputError: no point satisfies the bounds.
    """
    points = candidate_mixes(region, starts, seed)
    generator = np.random.Generator(np.random.PCG64((seed, 1)))
    values = value(points)
    best = int(np.argmax(values))
    point, highest = points[best], float(values[best])
    step = 0.5
    for _ in range(_ROUNDS):
        towards = random_mixes(region, starts, int(generator.integers(1 << 31)), count=_MAX_CANDIDATES // 8)
        # Steps towards random points of the region: convex combinations, which stay inside its hull.
        tried = point + step * generator.random((len(towards), 1)) * (towards - point)
        tried = tried[region.contains(tried)]
        if len(tried):
            values = value(tried)
            best = int(np.argmax(values))
            if values[best] > highest:
                point, highest = tried[best], float(values[best])
        step *= 0.6
    return point, highest


def candidate_mixes(region: Region, starts: Floats, seed: int) -> Floats:
    """The points that a search begins with, at least one; see :func:`random_mixes`.

    Raises:
        InputError: no point satisfies the bounds.
    """
    points = random_mixes(region, starts, seed)
    if not len(points):
        raise InputError(
            "no mix satisfies the bounds",
            where="--minimum, --maximum",
            hint="widen them, or search the full simplex with --region simplex",
        )
    return points


def random_mixes(region: Region, starts: Floats, seed: int, count: int = _MAX_CANDIDATES) -> Floats:
    """Points of a region: the starts, then random mixtures of few and of many corners; float64 ``[points, components]``.

    Points that violate the bounds are left out; none may be left.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    corners = len(region.corners)
    weights = np.concatenate(
        [generator.dirichlet(np.full(corners, alpha), count // 3) for alpha in (0.1, 0.4, 1.0)]
    )
    points = np.concatenate([starts, weights @ region.corners])
    return points[region.contains(points)]


def expected_improvement(mean: Floats, deviation: Floats, best: float, noise: float) -> Floats:
    """Augmented expected improvement of points over ``best``, in the score's unit; never negative.

    Expected improvement times a factor that decreases with the share of noise in an observation at the point
    (Huang, Allen, Notz and Zeng 2006, equation 13).

    Args:
        mean: predicted scores, float64 ``[points]``.
        deviation: of the predictions, float64 ``[points]``.
        best: predicted score of the best mix tried.
        noise: standard deviation of a single score around the surface.
    """
    from scipy.stats import norm

    gain = mean - best
    ratio = np.divide(gain, deviation, out=np.zeros_like(gain), where=deviation > 0)
    improvement = gain * norm.cdf(ratio) + deviation * norm.pdf(ratio)
    total = np.sqrt(deviation**2 + noise**2)
    factor = 1 - np.divide(noise, total, out=np.zeros_like(total), where=total > 0)
    return np.maximum(np.where(deviation > 0, improvement * factor, 0.0), 0.0)


def best_mix_draws(surface: Surface, points: Floats, best: Floats) -> Floats:
    """The best point under each resample of the surface, float64 ``[resamples, components]``.

    Args:
        surface: the surface.
        points: float64 ``[points, components]``, compared with each other.
        best: one more point, the best of the fitted surface, float64 ``[components]``.
    """
    compared = np.concatenate([best[None], points])
    return compared[surface.resample(compared).argmax(1)]


def search_region(
    shares: Floats, kind: Literal["hull", "simplex"], low: Sequence[float], high: Sequence[float]
) -> Region:
    """Mixtures of the mixes that were tried (``hull``), or all mixes (``simplex``), within bounds."""
    corners = shares if kind == "hull" else np.eye(shares.shape[1])
    return Region(corners, np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
