"""Laws of a score over mixtures, model sizes and training tokens, fitted within bounds.

    y = mix(h) + A / N^alpha + B / D^beta

with *y* a loss (or the negative of a score), *h* shares that add up to one, *N* parameters, *D* tokens. Forms of
the mix: ``linear`` ``sum_i b_i h_i``; ``exponential`` ``E + exp(sum_i t_i h_i)`` (Ye et al., "Data Mixing Laws",
arXiv 2403.16952); ``reciprocal`` ``E + 1 / sum_i C_i h_i^gamma_i`` and ``joint``, in which A and B depend on the mix
too (Shukor et al., "Scaling Laws for Optimal Data Mixtures", arXiv 2507.09404). The power laws are those of Hoffmann
et al. (arXiv 2203.15556).

Sizes and tokens are relative to their geometric means and scores are standardized, so that one set of bounds fits
all. A weak ridge keeps parameters in place that the data do not determine. Intervals are from a bootstrap of
residuals: runs are a design, so that a sample of runs may lack the sizes that a law needs.
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LawKind = Literal["linear-law", "exponential-law", "reciprocal-law", "joint-law"]
LAW_KINDS: tuple[LawKind, ...] = ("linear-law", "exponential-law", "reciprocal-law", "joint-law")

SPARE_RUNS = 2
"""Runs that a law must have beyond its parameters."""

_EXPONENT = (0.02, 2.0)
_LOG_FACTOR = (-8.0, 4.0)
_RIDGE = 1e-3
_STARTS = 3
_MOST_EVALUATIONS = 200
_MOST_IN_RESAMPLES = 40


@dataclass(frozen=True)
class Runs:
    """Runs of different mixes at different scales.

    Attributes:
        shares: float64 ``[runs, components]``, rows adding up to 1.
        parameters: float64 ``[runs]``; None where models are of one size.
        tokens: float64 ``[runs]``; None where all were trained on as many.
        losses: float64 ``[runs]``; lower is better.
    """

    shares: Floats
    parameters: Floats | None
    tokens: Floats | None
    losses: Floats

    def __len__(self) -> int:
        return len(self.losses)

    def chosen(self, rows: NDArray[np.bool_]) -> Runs:
        """Some of the runs."""
        return Runs(
            self.shares[rows],
            None if self.parameters is None else self.parameters[rows],
            None if self.tokens is None else self.tokens[rows],
            self.losses[rows],
        )


@dataclass(frozen=True)
class _Unit:
    """What the numbers of a fit are relative to."""

    parameters: float
    tokens: float
    mean: float
    spread: float

    @classmethod
    def of(cls, runs: Runs) -> _Unit:
        sizes = 1.0 if runs.parameters is None else float(np.exp(np.log(runs.parameters).mean()))
        tokens = 1.0 if runs.tokens is None else float(np.exp(np.log(runs.tokens).mean()))
        return cls(sizes, tokens, float(runs.losses.mean()), float(runs.losses.std()) or 1.0)


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Attributes:
        kind: its form.
        coefficients: float64 ``[coefficients]``, of the standardized problem.
        replicates: float64 ``[resamples, coefficients]``, fitted to resampled residuals.
        by_size, by_tokens: whether it has the term of model size, of tokens.
        components: number of shares.
    """

    kind: LawKind
    coefficients: Floats
    replicates: Floats
    by_size: bool
    by_tokens: bool
    components: int
    unit: _Unit

    def predict(self, shares: Floats, parameters: Floats | float, tokens: Floats | float) -> Floats:
        """Losses float64 ``[points]`` of mixes ``[points, components]`` at a scale, or at one scale each."""
        return self._losses(self.coefficients, shares, parameters, tokens)

    def resample(self, shares: Floats, parameters: Floats | float, tokens: Floats | float) -> Floats:
        """The same under each replicate, float64 ``[resamples, points]``."""
        return np.stack([self._losses(each, shares, parameters, tokens) for each in self.replicates])

    def exponents(self) -> dict[str, float]:
        """The exponents of model size and tokens, where the law has them."""
        count = len(_form(self.kind, self.components, self.by_size, self.by_tokens).low)
        tail = [name for name, has in (("alpha", self.by_size), ("beta", self.by_tokens)) if has]
        return {name: float(self.coefficients[count - len(tail) + n]) for n, name in enumerate(tail)}

    def _losses(
        self, coefficients: Floats, shares: Floats, parameters: Floats | float, tokens: Floats | float
    ) -> Floats:
        ones = np.ones(len(shares))
        form = _form(self.kind, self.components, self.by_size, self.by_tokens)
        standardized, _ = form.value(
            coefficients, shares, ones * parameters / self.unit.parameters, ones * tokens / self.unit.tokens
        )
        return self.unit.mean + self.unit.spread * standardized


@dataclass(frozen=True)
class _Form:
    """A form of the law.

    Attributes:
        low, high: bounds of its coefficients, float64 ``[coefficients]``.
        value: of coefficients, shares, relative sizes and tokens: losses ``[points]``, and their derivatives by the
            coefficients ``[points, coefficients]``.
    """

    low: Floats
    high: Floats
    value: Callable[[Floats, Floats, Floats, Floats], tuple[Floats, Floats]]


def coefficients_of(kind: LawKind, components: int, by_size: bool, by_tokens: bool) -> int:
    """How many coefficients a law has."""
    return len(_form(kind, components, by_size, by_tokens).low)


def _form(kind: LawKind, components: int, by_size: bool, by_tokens: bool) -> _Form:
    """Coefficients in order: of the mix, the factors of size and tokens, their exponents."""
    mix = {
        "linear-law": [(-20.0, 20.0)] * components,
        "exponential-law": [(-20.0, 20.0), *[(-12.0, 6.0)] * components],
        "reciprocal-law": [(-20.0, 20.0), *[(-6.0, 8.0)] * components, *[(0.05, 2.0)] * components],
        "joint-law": [(-20.0, 20.0), *[(-12.0, 6.0)] * components],
    }[kind]
    varies = kind == "joint-law"
    factors = [_LOG_FACTOR] * (components if varies else 1)
    scaled = [has for has in (by_size, by_tokens) if has]
    bounds = [*mix, *factors * len(scaled), *[_EXPONENT] * len(scaled)]
    low, high = np.array(bounds, dtype=np.float64).T

    def value(x: Floats, h: Floats, n: Floats, d: Floats) -> tuple[Floats, Floats]:
        y, columns = _mix_part(kind, x, h)
        at = len(mix)
        exponents: list[Floats] = []
        for number, base in enumerate([scale for scale, has in ((n, by_size), (d, by_tokens)) if has]):
            width = len(factors)
            factor = x[at + number * width : at + (number + 1) * width]
            exponent = x[at + len(scaled) * width + number]
            term = np.exp(h @ factor if varies else factor[0]) * base**-exponent
            y = y + term
            columns.append(term[:, None] * h if varies else term[:, None])
            exponents.append(-(np.log(base) * term)[:, None])
        return y, np.concatenate([*columns, *exponents], axis=1)

    return _Form(low, high, value)


def _mix_part(kind: LawKind, x: Floats, h: Floats) -> tuple[Floats, list[Floats]]:
    """What a mix contributes, float64 ``[points]``, and its derivatives by the coefficients, ``[points, ...]`` each."""
    count = h.shape[1]
    if kind == "linear-law":
        return h @ x[:count], [h]
    ones = np.ones((len(h), 1))
    if kind == "reciprocal-law":
        c, gamma = x[1 : 1 + count], x[1 + count : 1 + 2 * count]
        h = np.maximum(h, 1e-12)  # a share of 0 contributes nothing
        parts = np.exp(c) * h**gamma
        total = np.maximum(parts.sum(1), 1e-9)
        slopes = -parts / total[:, None] ** 2
        return x[0] + 1 / total, [ones, slopes, slopes * np.log(h)]
    term = np.exp(h @ x[1 : 1 + count])
    return x[0] + term, [ones, term[:, None] * h]


def fit_law(kind: LawKind, runs: Runs, *, seed: int, resamples: int = 0, start: Floats | None = None) -> Law:
    """Fit a law by least squares within bounds, from several starts.

    Args:
        kind: its form.
        runs: as many as :func:`coefficients_of` says and :data:`SPARE_RUNS` more.
        seed: of the starts and the bootstrap.
        resamples: bootstrap samples of the residuals.
        start: coefficients to start from instead, as of a fit to nearly the same runs.
    """
    components, by_size, by_tokens = (
        runs.shares.shape[1],
        runs.parameters is not None,
        runs.tokens is not None,
    )
    form, unit = _form(kind, components, by_size, by_tokens), _Unit.of(runs)
    generator = np.random.Generator(np.random.PCG64(seed))
    targets = (runs.losses - unit.mean) / unit.spread
    starts = [np.clip(np.where(form.low < -15, 0.0, (form.low + form.high) / 2), form.low, form.high)]
    starts += [
        form.low + (form.high - form.low) * generator.random(len(form.low)) for _ in range(_STARTS - 1)
    ]
    starts = starts if start is None else [start]
    best = min(
        (_least_squares(form, runs, unit, targets, start) for start in starts), key=lambda fit: fit[1]
    )[0]
    law = Law(kind, best, np.zeros((0, len(best))), by_size, by_tokens, components, unit)
    if not resamples:
        return law
    fitted = (law.predict(runs.shares, *_scales(runs)) - unit.mean) / unit.spread
    residuals = targets - fitted
    # Residuals of a fit are smaller than errors.
    residuals = (residuals - residuals.mean()) * math.sqrt(len(runs) / max(1, len(runs) - len(best)))
    replicates = [
        _least_squares(
            form, runs, unit, fitted + generator.choice(residuals, len(runs)), best, _MOST_IN_RESAMPLES
        )[0]
        for _ in range(resamples)
    ]
    return replace(law, replicates=np.stack(replicates))


def _scales(runs: Runs) -> tuple[Floats | float, Floats | float]:
    return (
        1.0 if runs.parameters is None else runs.parameters,
        1.0 if runs.tokens is None else runs.tokens,
    )


def _least_squares(
    form: _Form, runs: Runs, unit: _Unit, targets: Floats, start: Floats, most: int = _MOST_EVALUATIONS
) -> tuple[Floats, float]:
    from scipy.optimize import least_squares

    sizes, tokens = _scales(runs)
    ones = np.ones(len(runs))
    n, d = ones * sizes / unit.parameters, ones * tokens / unit.tokens
    center = np.clip(0.0, form.low, form.high)
    width = form.high - form.low

    strength = math.sqrt(_RIDGE) / width

    def residuals(x: Floats) -> Floats:
        return np.concatenate([form.value(x, runs.shares, n, d)[0] - targets, strength * (x - center)])

    def slopes(x: Floats) -> Floats:
        return np.concatenate([form.value(x, runs.shares, n, d)[1], np.diag(strength)])

    inside = np.clip(start, form.low + 1e-6 * width, form.high - 1e-6 * width)
    solve: Any = least_squares
    found: Any = solve(
        residuals, inside, slopes, bounds=(form.low, form.high), x_scale=width, ftol=1e-7, xtol=1e-7, gtol=1e-7,
        max_nfev=most,
    )  # fmt: skip
    return np.asarray(found.x, dtype=np.float64), float(found.cost)


def predict_left_out(kind: LawKind, runs: Runs, *, seed: int) -> Floats:
    """Each run's loss predicted from the others, float64 ``[runs]``."""
    predicted, near = np.zeros(len(runs)), fit_law(kind, runs, seed=seed).coefficients
    for left_out in range(len(runs)):
        rest = np.arange(len(runs)) != left_out
        predicted[left_out] = predict_runs(
            fit_law(kind, runs.chosen(rest), seed=seed, start=near), runs.chosen(~rest)
        )[0]
    return predicted


def predict_runs(law: Law, runs: Runs) -> Floats:
    """Losses of runs at their own scales, float64 ``[runs]``."""
    return law.predict(runs.shares, *_scales(runs))
