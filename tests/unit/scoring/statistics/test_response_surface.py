"""Response surfaces: known functions come back, cross-validation is refitting, draws have the stated moments."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut

from priorkit.core.errors import InputError
from priorkit.report.plots.surfaces import slice_points
from priorkit.scoring.statistics import response_surface as rs


def simplex(count: int, components: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(components), count)


def test_scheffes_terms() -> None:
    found = rs.scheffe_terms(np.array([[0.2, 0.3, 0.5]]))
    np.testing.assert_allclose(found, [[0.2, 0.3, 0.5, 0.06, 0.1, 0.15]])


def test_the_quadratic_gives_a_quadratic_back() -> None:
    shares = simplex(60, 3)
    truth = np.array([1.0, 2.0, 0.5, 6.0, -1.0, 2.0])
    scores = rs.scheffe_terms(shares) @ truth
    surface = rs.fit_surface("quadratic", shares, scores, seed=0, resamples=50)
    new = simplex(20, 3, 1)
    np.testing.assert_allclose(surface.predict(new)[0], rs.scheffe_terms(new) @ truth, atol=1e-3)
    assert surface.predict(new)[1].max() < 1e-2
    checked = rs.cross_validate("quadratic", shares, scores, seed=0)
    assert checked.r2 > 0.999
    assert checked.spearman > 0.99


@pytest.mark.parametrize("kind", rs.SURFACE_KINDS)
def test_leaving_one_out_is_refitting_without_it(kind) -> None:
    shares, scores = simplex(12, 3, 7), np.random.default_rng(8).standard_normal(12)
    found = rs.cross_validate(kind, shares, scores, seed=2).predicted
    for rest, (out,) in LeaveOneOut().split(shares):
        surface = rs.fit_surface(kind, shares[rest], scores[rest], seed=2, resamples=50)
        assert found[out] == pytest.approx(surface.predict(shares[[out]])[0][0], abs=1e-9)


def test_quality_of_noise_is_no_quality() -> None:
    shares, scores = simplex(25, 3, 9), np.random.default_rng(10).standard_normal(25)
    for kind in rs.SURFACE_KINDS:
        assert rs.cross_validate(kind, shares, scores, seed=0).r2 < 0.3


def test_draws_of_the_process_have_its_mean_and_deviation() -> None:
    shares = simplex(15, 3, 11)
    scores = shares[:, 0] - shares[:, 1] ** 2 + 0.05 * np.random.default_rng(12).standard_normal(15)
    surface = rs.fit_surface("gaussian-process", shares, scores, seed=0, resamples=4000)
    points = simplex(6, 3, 13)
    mean, deviation = surface.predict(points)
    draws = surface.resample(points)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * deviation.max() / np.sqrt(4000) + 1e-6)
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.08, atol=1e-4)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="at least 4 mixes, got 3"):
        rs.fit_surface("quadratic", simplex(3, 2), np.zeros(3), seed=0)
    with pytest.raises(InputError, match="all mixes are the same"):
        rs.fit_surface("quadratic", np.tile([0.5, 0.5], (5, 1)), np.zeros(5), seed=0)


def test_slices_stay_on_the_simplex() -> None:
    for best in (np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.0])):
        points = slice_points(best, 0, 0.0, 1.0)
        np.testing.assert_allclose(points.sum(1), 1)
        assert points.min() >= 0
        assert (points[0, 0], points[-1, 0]) == (0, 1)
