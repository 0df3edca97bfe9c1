"""Response surfaces over mixtures: a score as a function of shares that add up to one.

Sources: Scheffé, "Experiments with Mixtures" (1958), for the quadratic in shares and their products, here
with a ridge penalty; Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006); Huang,
Allen, Notz and Zeng, "Global Optimization of Stochastic Black-Box Systems via Sequential Kriging" (2006), for
expected improvement with noisy scores. Both surfaces are scikit-learn's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError

Floats = NDArray[np.float64]
Kind = Literal["quadratic", "gaussian-process"]
Acquisition = Literal["expected-improvement", "variance"]
KINDS: tuple[Kind, ...] = ("quadratic", "gaussian-process")

FEWEST = 4
"""Fewest mixes that a surface is fitted to."""

_PENALTIES = tuple(float(10.0**power) for power in np.arange(-4, 3.1, 0.5))
_CANDIDATES = 4096
_ROUNDS = 12
_RESTARTS = 2


@dataclass(frozen=True)
class CrossValidation:
    """How well a surface predicts mixes it was not fitted to, each left out in turn.

    Attributes:
        predicted: float64 ``[mixes]``, each mix's score from the others.
        r2: 1 minus the squared errors over the squared deviations from the mean; 0 for one who knows the
            mean alone, negative for worse.
        rmse: root of the mean squared error, in the score's unit.
        spearman: rank correlation of predicted and observed scores; NaN where one of them is constant.
    """

    predicted: Floats
    r2: float
    rmse: float
    spearman: float


@dataclass(frozen=True)
class Surface:
    """A fitted surface.

    Attributes:
        kind: its family.
        predict: shares float64 ``[points, components]`` -> mean and standard deviation, float64 ``[points]``
            each; the deviation is the mean's own, without the noise of a single score.
        resample: shares -> the mean under bootstrap samples of the mixes (quadratic) or draws of
            the posterior (Gaussian process), ``[resamples, points]``.
        about: what was chosen in fitting.
    """

    kind: Kind
    predict: Callable[[Floats], tuple[Floats, Floats]]
    resample: Callable[[Floats], Floats]
    about: dict[str, Any]


def scheffe(shares: Floats) -> Floats:
    """The terms of Scheffé's quadratic: all shares, then all products of two, ``[points, terms]``."""
    rows, columns = np.triu_indices(shares.shape[1], k=1)
    return np.concatenate([shares, shares[:, rows] * shares[:, columns]], axis=1)


def fit_surface(kind: Kind, shares: Floats, scores: Floats, *, seed: int, resamples: int = 200) -> Surface:
    """Fit a surface.

    Args:
        kind: ``quadratic`` or ``gaussian-process``.
        shares: float64 ``[mixes, components]``, rows adding up to 1.
        scores: float64 ``[mixes]``.
        seed: of the bootstrap, the restarts and the draws.
        resamples: bootstrap samples, or draws of the posterior.

    Raises:
        InputError: fewer than :data:`FEWEST` mixes, or all of them the same.
    """
    if len(scores) < FEWEST:
        raise InputError(
            f"a surface needs at least {FEWEST} mixes, got {len(scores)}",
            hint="train and evaluate more mixes",
        )
    if np.ptp(shares, axis=0).max() < 1e-9:
        raise InputError("all mixes are the same", hint="evaluate models trained on different mixes")
    fit = _fit_quadratic if kind == "quadratic" else _fit_process
    return fit(shares, scores, seed, resamples)


def _quadratic_model(shares: Floats, scores: Floats, penalty: float | None = None) -> Any:
    """A ridge regression on Scheffé's terms, each in units of its deviation; its penalty chosen if not given."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # RidgeCV chooses by its closed form of leaving one out.
    ridge = RidgeCV(alphas=_PENALTIES) if penalty is None else Ridge(alpha=penalty)
    return make_pipeline(StandardScaler(), ridge).fit(scheffe(shares), scores)


def _coefficients(model: Any) -> Floats:
    """Coefficients of the plain terms, then the constant, ``[terms + 1]``."""
    scaler, ridge = model[0], model[-1]
    weights = ridge.coef_ / scaler.scale_
    return np.append(weights, ridge.intercept_ - weights @ scaler.mean_)


def _fit_quadratic(shares: Floats, scores: Floats, seed: int, resamples: int) -> Surface:
    model = _quadratic_model(shares, scores)
    # The penalty stays that of the whole data: where rows repeat, leaving one out leaves its twin.
    penalty = float(model[-1].alpha_)
    own = _coefficients(model)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = generator.integers(0, len(scores), (resamples, len(scores)))
    replicates = np.stack([_coefficients(_quadratic_model(shares[d], scores[d], penalty)) for d in draws])

    def resample(points: Floats) -> Floats:
        return replicates[:, :-1] @ scheffe(points).T + replicates[:, -1:]

    def predict(points: Floats) -> tuple[Floats, Floats]:
        return scheffe(points) @ own[:-1] + own[-1], resample(points).std(0)

    return Surface("quadratic", predict, resample, {"penalty": penalty})


def _process_model(shares: Floats, scores: Floats, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    # Distances in units of the mixes' own spread; scores in units of theirs.
    kernel = ConstantKernel(1.0, (0.05, 50.0)) * RBF(1.0, (0.3, 30.0)) + WhiteKernel(0.1, (1e-4, 2.0))
    model = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=_RESTARTS, random_state=seed
    )
    with warnings.catch_warnings():
        # Its bounds are meant to hold: with a dozen mixes the likelihood may prefer no noise at all.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(shares / _spread(shares), scores)


def _spread(shares: Floats) -> float:
    """Root mean square distance of the mixes from their mean."""
    return float(np.sqrt(((shares - shares.mean(0)) ** 2).sum(1).mean()))


def _fit_process(shares: Floats, scores: Floats, seed: int, resamples: int) -> Surface:
    model = _process_model(shares, scores, seed)
    spread = _spread(shares)
    constant, noise = model.kernel_.k1.k1.constant_value, model.kernel_.k2.noise_level
    unit = float(model._y_train_std) ** 2  # scores are fitted in units of their deviation
    about = {
        "length": float(model.kernel_.k1.k2.length_scale * spread),
        "signal_deviation": math.sqrt(constant * unit),
        "noise_deviation": math.sqrt(noise * unit),
    }

    def predict(points: Floats) -> tuple[Floats, Floats]:
        mean, deviation = model.predict(points / spread, return_std=True)
        return mean, np.sqrt(np.maximum(deviation**2 - noise * unit, 0.0))

    def resample(points: Floats) -> Floats:
        mean, covariance = model.predict(points / spread, return_cov=True)
        covariance = covariance - noise * unit * np.eye(len(points))
        values, vectors = np.linalg.eigh(covariance)
        generator = np.random.Generator(np.random.PCG64(seed))
        normal = generator.standard_normal((resamples, len(points)))
        return mean + normal @ (vectors * np.sqrt(np.maximum(values, 0.0))).T

    return Surface("gaussian-process", predict, resample, about)


def cross_validate(kind: Kind, shares: Floats, scores: Floats, *, seed: int) -> CrossValidation:
    """Predict each mix from the others; everything that fitting chooses is chosen anew each time."""
    from scipy.stats import spearmanr

    predicted = np.zeros(len(scores))
    for out in range(len(scores)):
        rest = np.arange(len(scores)) != out
        if kind == "quadratic":
            predicted[out] = _quadratic_model(shares[rest], scores[rest]).predict(scheffe(shares[[out]]))[0]
        else:
            model = _process_model(shares[rest], scores[rest], seed)
            predicted[out] = model.predict(shares[[out]] / _spread(shares[rest]))[0]
    errors = float(((predicted - scores) ** 2).sum())
    total = float(((scores - scores.mean()) ** 2).sum())
    constant = np.ptp(predicted) == 0 or np.ptp(scores) == 0
    correlation: Any = None if constant else spearmanr(predicted, scores)
    return CrossValidation(
        predicted,
        1 - errors / total if total else math.nan,
        math.sqrt(errors / len(scores)),
        math.nan if correlation is None else float(correlation.statistic),
    )


@dataclass(frozen=True)
class Region:
    """Where mixes are looked for.

    Attributes:
        corners: float64 ``[corners, components]``; every mix of the region is a mixture of these.
        low, high: float64 ``[components]``, bounds on shares besides.
    """

    corners: Floats
    low: Floats
    high: Floats

    def holds(self, points: Floats) -> NDArray[np.bool_]:
        """Which points keep the bounds."""
        inside = (points >= self.low - 1e-9) & (points <= self.high + 1e-9)
        return np.asarray(inside.all(1))


def maximise(
    value: Callable[[Floats], Floats], region: Region, starts: Floats, *, seed: int
) -> tuple[Floats, float]:
    """The point of a region with the largest value, by seeded search that narrows down.

    Args:
        value: points float64 ``[points, components]`` -> float64 ``[points]``.
        region: where to search.
        starts: points to try beside random ones, such as the mixes that were tried.
        seed: of the random points.

    Returns:
        The point float64 ``[components]`` and its value.

    Raises:
        InputError: no point keeps the bounds.
    """
    points = candidates(region, starts, seed)
    generator = np.random.Generator(np.random.PCG64((seed, 1)))
    values = value(points)
    best = int(np.argmax(values))
    point, highest = points[best], float(values[best])
    step = 0.5
    for _ in range(_ROUNDS):
        towards = candidates(region, starts, int(generator.integers(1 << 31)), count=_CANDIDATES // 8)
        # Steps to and from random points of the region; convex towards them, so that they stay inside.
        tried = point + step * generator.random((len(towards), 1)) * (towards - point)
        tried = tried[region.holds(tried)]
        if len(tried):
            values = value(tried)
            best = int(np.argmax(values))
            if values[best] > highest:
                point, highest = tried[best], float(values[best])
        step *= 0.6
    return point, highest


def candidates(region: Region, starts: Floats, seed: int, count: int = _CANDIDATES) -> Floats:
    """Points of a region: the starts, then random mixtures of few and of many corners.

    Raises:
        InputError: none keeps the bounds.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    corners = len(region.corners)
    weights = np.concatenate(
        [generator.dirichlet(np.full(corners, alpha), count // 3) for alpha in (0.1, 0.4, 1.0)]
    )
    points = np.concatenate([starts, weights @ region.corners])
    points = points[region.holds(points)]
    if not len(points):
        raise InputError(
            "no mix keeps the bounds",
            where="--minimum, --maximum",
            hint="widen them, or use --region simplex",
        )
    return points


def expected_improvement(mean: Floats, deviation: Floats, best: float, noise: float) -> Floats:
    """How much better than ``best`` a point is expected to be, in the score's unit; never negative.

    Where scores are noisy, what trying a point teaches shrinks with the share of noise in what would be
    seen there (augmented expected improvement: Huang, Allen, Notz and Zeng 2006, equation 13).

    Args:
        mean: predicted scores, float64 ``[points]``.
        deviation: of the predictions, float64 ``[points]``.
        best: predicted score of the best mix tried.
        noise: deviation of a single score around the surface.
    """
    from scipy.stats import norm

    gain = mean - best
    ratio = np.divide(gain, deviation, out=np.zeros_like(gain), where=deviation > 0)
    found = gain * norm.cdf(ratio) + deviation * norm.pdf(ratio)
    seen = np.sqrt(deviation**2 + noise**2)
    learnt = 1 - np.divide(noise, seen, out=np.zeros_like(seen), where=seen > 0)
    return np.maximum(np.where(deviation > 0, found * learnt, 0.0), 0.0)


def optimum_draws(surface: Surface, points: Floats, best: Floats) -> Floats:
    """Where the best point lies under each resample of the surface, float64 ``[resamples, components]``.

    Args:
        surface: the surface.
        points: the points compared, float64 ``[points, components]``.
        best: one point more, the best of the surface itself.
    """
    compared = np.concatenate([best[None], points])
    return compared[surface.resample(compared).argmax(1)]


def region_of(
    shares: Floats, kind: Literal["hull", "simplex"], low: Sequence[float], high: Sequence[float]
) -> Region:
    """The mixtures of the mixes that were tried (``hull``), or of single components (``simplex``)."""
    corners = shares if kind == "hull" else np.eye(shares.shape[1])
    return Region(corners, np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
