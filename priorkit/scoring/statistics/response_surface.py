"""Response surfaces over mixtures: a score as a function of shares that add up to one.

Sources: Scheffé, "Experiments with Mixtures" (1958), for the quadratic in shares and their products, here
with a ridge penalty; Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006). Both surfaces
are scikit-learn's.
"""

from __future__ import annotations

# scipy and scikit-learn have no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError

Floats = NDArray[np.float64]
SurfaceKind = Literal["quadratic", "gaussian-process"]
SURFACE_KINDS: tuple[SurfaceKind, ...] = ("quadratic", "gaussian-process")

MIN_MIXES = 4
"""A surface needs at least this many mixes."""

_PENALTIES = tuple(float(10.0**power) for power in np.arange(-4, 3.1, 0.5))
_RESTARTS = 2


@dataclass(frozen=True)
class CrossValidation:
    """Leave-one-out cross-validation of a surface.

    Attributes:
        predicted: float64 ``[mixes]``, each mix's score predicted from the others.
        r2: coefficient of determination; 0 for predicting the mean, negative if worse; NaN for equal scores.
        rmse: root mean squared error, in the score's unit.
        spearman: rank correlation of predicted and observed scores; NaN if either is constant.
    """

    predicted: Floats
    r2: float
    rmse: float
    spearman: float


@dataclass(frozen=True)
class Surface:
    """A fitted surface.

    Attributes:
        kind: its family, or that of the law that it is a section of.
        predict: shares float64 ``[points, components]`` -> mean and standard deviation, float64 ``[points]``
            each; the deviation is that of the mean, without observation noise.
        resample: shares -> the mean under bootstrap samples of the mixes (quadratic) or draws of
            the posterior (Gaussian process), ``[resamples, points]``.
        parameters: what fitting chose.
    """

    kind: str
    predict: Callable[[Floats], tuple[Floats, Floats]]
    resample: Callable[[Floats], Floats]
    parameters: dict[str, Any]


def scheffe_terms(shares: Floats) -> Floats:
    """The terms of Scheffé's quadratic: all shares, then all pairwise products, ``[points, terms]``."""
    rows, columns = np.triu_indices(shares.shape[1], k=1)
    return np.concatenate([shares, shares[:, rows] * shares[:, columns]], axis=1)


def fit_surface(
    kind: SurfaceKind, shares: Floats, scores: Floats, *, seed: int, resamples: int = 200
) -> Surface:
    """Fit a surface.

    Args:
        kind: ``quadratic`` or ``gaussian-process``.
        shares: float64 ``[mixes, components]``, rows adding up to 1.
        scores: float64 ``[mixes]``.
        seed: of the bootstrap, the restarts and the draws.
        resamples: bootstrap samples, or draws of the posterior.

    Raises:
        InputError: fewer than :data:`MIN_MIXES` mixes, or all equal.
    """
    if len(scores) < MIN_MIXES:
        raise InputError(
            f"a surface needs at least {MIN_MIXES} mixes, got {len(scores)}",
            hint="train and evaluate more mixes",
        )
    if np.ptp(shares, axis=0).max() < 1e-9:
        raise InputError("all mixes are the same", hint="evaluate models trained on different mixes")
    fit = _fit_quadratic if kind == "quadratic" else _fit_process
    return fit(shares, scores, seed, resamples)


def _quadratic_model(shares: Floats, scores: Floats, penalty: float | None = None) -> Any:
    """A ridge regression on Scheffé's standardized terms; by default its penalty is chosen by leave-one-out."""
    from sklearn.linear_model import Ridge, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # RidgeCV uses the closed form of leave-one-out.
    ridge = RidgeCV(alphas=_PENALTIES) if penalty is None else Ridge(alpha=penalty)
    return make_pipeline(StandardScaler(), ridge).fit(scheffe_terms(shares), scores)


def _coefficients(model: Any) -> Floats:
    """Coefficients of the unstandardized terms, then the intercept, ``[terms + 1]``."""
    scaler, ridge = model[0], model[-1]
    weights = ridge.coef_ / scaler.scale_
    return np.append(weights, ridge.intercept_ - weights @ scaler.mean_)


def _fit_quadratic(shares: Floats, scores: Floats, seed: int, resamples: int) -> Surface:
    model = _quadratic_model(shares, scores)
    # The penalty is that of the full data: in a bootstrap sample, leave-one-out would keep duplicates of the row.
    penalty = float(model[-1].alpha_)
    fitted = _coefficients(model)
    generator = np.random.Generator(np.random.PCG64(seed))
    draws = generator.integers(0, len(scores), (resamples, len(scores)))
    replicates = np.stack([_coefficients(_quadratic_model(shares[d], scores[d], penalty)) for d in draws])

    def resample(points: Floats) -> Floats:
        return replicates[:, :-1] @ scheffe_terms(points).T + replicates[:, -1:]

    def predict(points: Floats) -> tuple[Floats, Floats]:
        return scheffe_terms(points) @ fitted[:-1] + fitted[-1], resample(points).std(0)

    return Surface("quadratic", predict, resample, {"penalty": penalty})


def _process_model(shares: Floats, scores: Floats, seed: int) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    # Distances in units of the spread of the mixes; scores standardized.
    kernel = ConstantKernel(1.0, (0.05, 50.0)) * RBF(1.0, (0.3, 30.0)) + WhiteKernel(0.1, (1e-4, 2.0))
    model = GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=_RESTARTS, random_state=seed
    )
    with warnings.catch_warnings():
        # The bounds on hyperparameters are intended: with a dozen mixes the likelihood may prefer zero noise.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(shares / _spread(shares), scores)


def _spread(shares: Floats) -> float:
    """Root mean square distance of the mixes from their mean."""
    return float(np.sqrt(((shares - shares.mean(0)) ** 2).sum(1).mean()))


def _fit_process(shares: Floats, scores: Floats, seed: int, resamples: int) -> Surface:
    model = _process_model(shares, scores, seed)
    spread = _spread(shares)
    constant, noise = model.kernel_.k1.k1.constant_value, model.kernel_.k2.noise_level
    unit = float(model._y_train_std) ** 2  # scores are standardized for fitting
    parameters = {
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

    return Surface("gaussian-process", predict, resample, parameters)


def cross_validate(kind: SurfaceKind, shares: Floats, scores: Floats, *, seed: int) -> CrossValidation:
    """Predict each mix from the others, repeating all choices that fitting makes."""
    predicted = np.zeros(len(scores))
    for left_out in range(len(scores)):
        rest = np.arange(len(scores)) != left_out
        if kind == "quadratic":
            predicted[left_out] = _quadratic_model(shares[rest], scores[rest]).predict(
                scheffe_terms(shares[[left_out]])
            )[0]
        else:
            model = _process_model(shares[rest], scores[rest], seed)
            predicted[left_out] = model.predict(shares[[left_out]] / _spread(shares[rest]))[0]
    return judge_predictions(predicted, scores)


def judge_predictions(predicted: Floats, scores: Floats) -> CrossValidation:
    """How well predictions of left-out scores fit, both float64 ``[mixes]``."""
    from scipy.stats import spearmanr

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
