"""Laws recover what data were made from, their derivatives are right, and their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from priorkit.scoring.statistics.scaling_laws import (
    LAW_KINDS,
    LawKind,
    Runs,
    _form,
    coefficients_of,
    fit_law,
    predict_left_out,
    predict_runs,
)

Floats = np.ndarray


def truth(h: Floats, n: Floats | float, d: Floats | float) -> Floats:
    """Shukor et al.'s additive law with coefficients of the size that Hoffmann et al. found."""
    mix = 1 / (np.array([1.0, 2.0, 0.5]) * h ** np.array([0.3, 0.6, 0.9])).sum(1)
    return 1.5 + mix + 400 / n**0.34 + 410 / d**0.28


def runs_of(noise: float, seed: int, mixes: int = 6) -> Runs:
    generator = np.random.default_rng(seed)
    shares = generator.dirichlet(np.ones(3), mixes)
    design = [(h, n, d) for h in shares for n in (1e8, 3e8, 1e9) for d in (1e9, 5e9, 2e10)]
    h, n, d = (np.array(column, dtype=np.float64) for column in zip(*design, strict=True))
    return Runs(h, n, d, truth(h, n, d) + generator.normal(0, noise, len(h)))


@pytest.mark.parametrize("kind", LAW_KINDS)
@pytest.mark.parametrize("scaled", [(True, True), (True, False), (False, True)])
def test_derivatives_are_those_of_differences(kind: LawKind, scaled: tuple[bool, bool]) -> None:
    form = _form(kind, 3, *scaled)
    assert coefficients_of(kind, 3, *scaled) == len(form.low)
    generator = np.random.default_rng(1)
    h, n, d = generator.dirichlet(np.ones(3), 5), generator.random(5) + 0.5, generator.random(5) + 0.5
    x = np.clip(generator.normal(0, 0.5, len(form.low)), form.low + 0.1, form.high - 0.1)
    _, slopes = form.value(x, h, n, d)
    for number in range(len(x)):
        step = np.zeros(len(x))
        step[number] = 1e-6
        difference = (form.value(x + step, h, n, d)[0] - form.value(x - step, h, n, d)[0]) / 2e-6
        np.testing.assert_allclose(slopes[:, number], difference, rtol=1e-5, atol=1e-7)


def test_the_law_that_made_the_data_is_found_and_predicts_beyond_them() -> None:
    runs = runs_of(0.005, 0)
    errors = {
        kind: float(np.sqrt(((predict_left_out(kind, runs, seed=0) - runs.losses) ** 2).mean()))
        for kind in LAW_KINDS
    }
    assert min(errors, key=errors.__getitem__) == "reciprocal-law"
    assert errors["reciprocal-law"] < 0.01 < errors["linear-law"]
    law = fit_law("reciprocal-law", runs, seed=0)
    assert law.exponents() == {"alpha": pytest.approx(0.34, abs=0.05), "beta": pytest.approx(0.28, abs=0.05)}
    h = np.array([[0.4, 0.4, 0.2]])
    assert law.predict(h, 3e9, 1e11)[0] == pytest.approx(truth(h, 3e9, 1e11)[0], abs=0.02)
    assert predict_runs(law, runs) == pytest.approx(runs.losses, abs=0.03)


def test_intervals_cover_the_truth_beyond_the_data() -> None:
    """95 % intervals at a larger scale over 8 data sets: at least 6 hold the true loss."""
    h = np.array([[0.3, 0.3, 0.4]])
    covered = 0
    for seed in range(8):
        law = fit_law("reciprocal-law", runs_of(0.01, seed), seed=seed, resamples=25)
        low, high = np.quantile(law.resample(h, 2e9, 4e10)[:, 0], [0.025, 0.975])
        covered += low <= truth(h, 2e9, 4e10)[0] <= high
    assert covered >= 6


def test_published_scaling_curves_extrapolate() -> None:
    """LSBS's web-crawl runs (figure, AVG VQA by size and tokens): 13B from the four smaller sizes, to a point."""
    sizes = np.array([0.34e9, 1e9, 3e9, 7e9, 13e9])
    tokens = np.array([5e9, 10e9, 20e9, 30e9, 50e9, 70e9, 100e9])
    scores = np.array([
        [27.49, 27.89, 28.03, 28.30, 28.34, 28.30, 28.58],
        [28.74, 29.51, 29.75, 29.75, 29.71, 29.88, 29.84],
        [30.63, 30.56, 30.95, 31.28, 31.40, 31.36, 31.91],
        [31.33, 32.20, 33.15, 33.12, 33.00, 33.19, 33.80],
        [32.00, 32.98, 33.85, 34.10, 34.11, 34.58, 34.89],
    ])  # fmt: skip
    n, d = (grid.ravel() for grid in np.meshgrid(sizes, tokens, indexing="ij"))
    ones = np.ones((len(n), 1))
    small = n < 13e9
    runs = Runs(ones, n, d, -scores.ravel())
    law = fit_law("linear-law", runs.chosen(small), seed=0)
    error = predict_runs(law, runs.chosen(~small)) - runs.losses[~small]
    assert np.abs(error).max() < 1.5
    unchanged = np.abs(scores[4] - scores[3]).mean()
    assert np.abs(error).mean() < unchanged + 0.2


def test_fits_are_the_same_for_the_same_seed() -> None:
    runs = runs_of(0.02, 3, mixes=3)
    first, second = (fit_law("joint-law", runs, seed=4, resamples=3) for _ in range(2))
    np.testing.assert_array_equal(first.coefficients, second.coefficients)
    np.testing.assert_array_equal(first.replicates, second.replicates)
