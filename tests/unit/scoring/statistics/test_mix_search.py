"""Searching mixes: the search stays inside, known optima and the paper's are found."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from priorkit.core.errors import InputError
from priorkit.scoring.statistics import mix_search
from priorkit.scoring.statistics import response_surface as rs

GOLDEN = Path(__file__).parents[3] / "golden" / "lsbs"


def columns(file: str) -> dict[str, np.ndarray]:
    with (GOLDEN / file).open() as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if name not in ("mix", "source")]
    return {name: np.array([float(row[name]) for row in rows]) for name in names}


def simplex(count: int, components: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(components), count)


def best_of(kind, shares: np.ndarray, scores: np.ndarray) -> np.ndarray:
    surface = rs.fit_surface(kind, shares, scores, seed=1, resamples=50)
    region = mix_search.search_region(shares, "hull", [0] * shares.shape[1], [1] * shares.shape[1])
    return mix_search.maximize(lambda points: surface.predict(points)[0], region, shares, seed=1)[0]


@pytest.mark.parametrize("kind", rs.SURFACE_KINDS)
def test_the_best_mix_of_a_known_hill_is_its_top(kind) -> None:
    shares = simplex(60, 4, 3)
    top = np.array([0.35, 0.3, 0.2, 0.15])
    noise = 0.01 * np.random.default_rng(5).standard_normal(60)
    scores = -((shares - top) ** 2).sum(1) * 8 + noise
    np.testing.assert_allclose(best_of(kind, shares, scores), top, atol=0.06)


def test_expected_improvement_in_closed_form() -> None:
    mean, deviation = np.array([1.0, 2.0, 3.0, 1.0]), np.array([0.5, 0.5, 0.0, 0.5])
    found = mix_search.expected_improvement(mean, deviation, 1.5, 0.0)
    draws = np.maximum(mean[0] + 0.5 * norm.ppf((np.arange(200_000) + 0.5) / 200_000) - 1.5, 0).mean()
    assert found[0] == pytest.approx(draws, rel=1e-3)
    assert found[2] == 0, "where all is known there is nothing to learn"
    noisy = mix_search.expected_improvement(mean, deviation, 1.5, 0.5)
    np.testing.assert_allclose(noisy[:2], found[:2] * (1 - 0.5 / np.sqrt(0.5)))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(4, 12), st.integers(0, 1000))
def test_the_search_stays_in_the_region(components: int, mixes: int, seed: int) -> None:
    shares = simplex(mixes, components, seed)
    low = shares.min(0) * 0.5
    high = np.minimum(1.0, shares.max(0))
    region = mix_search.search_region(shares, "hull", low, high)
    target = np.arange(components, dtype=np.float64)
    point, value = mix_search.maximize(lambda points: points @ target, region, shares, seed=seed)
    assert point.sum() == pytest.approx(1)
    assert region.contains(point[None]).all()
    # A linear function is largest at a corner of the hull.
    assert value == pytest.approx((shares @ target).max())
    again, _ = mix_search.maximize(lambda points: points @ target, region, shares, seed=seed)
    np.testing.assert_array_equal(point, again)


def test_bounds_that_no_mix_satisfies_are_refused() -> None:
    region = mix_search.search_region(simplex(5, 3), "hull", [0.99, 0, 0], [1, 1, 1])
    with pytest.raises(InputError, match="no mix satisfies the bounds"):
        mix_search.candidate_mixes(region, simplex(5, 3), 0)


@pytest.mark.parametrize("kind", rs.SURFACE_KINDS)
def test_the_papers_grid_has_its_optimum_where_the_paper_has_it(kind) -> None:
    """Table 1: 60 % reasoning and 15 % visual text is best, 60 to 75 % with 15 % are close."""
    grid = columns("grid.csv")
    shares = np.stack([grid["reasoning"], grid["visual"], 1 - grid["reasoning"] - grid["visual"]], axis=1)
    reasoning, visual, _ = best_of(kind, shares, grid["vision_accuracy"])
    assert 0.55 <= reasoning <= 0.70
    assert 0.12 <= visual <= 0.22
    checked = rs.cross_validate(kind, shares, grid["vision_accuracy"], seed=0)
    assert checked.r2 > 0.6


@pytest.mark.parametrize("kind", rs.SURFACE_KINDS)
def test_the_papers_mixes_have_their_optima_where_the_paper_has_them(kind) -> None:
    """Table 2: overall mix 6 (52 % reasoning) is best; for vision mixes 9 and 10, for language mix 0."""
    mixes, labels = columns("mixes.csv"), columns("labels.csv")
    sources = ["web-crawl", "encyclopedia", "academia", "literature", "math", "code"]
    shares = np.stack([mixes[name] for name in sources], axis=1)
    shares /= shares.sum(1, keepdims=True)
    reasoning = labels["reasoning"] / 100
    overall = best_of(kind, shares, -mixes["overall_rank"])
    assert 0.48 <= overall @ reasoning <= 0.58
    assert np.abs(overall - shares[6]).max() < 0.06
    vision = best_of(kind, shares, mixes["vision_accuracy"])
    assert vision @ reasoning >= 0.55
    language = best_of(kind, shares, -mixes["perplexity"])
    assert language @ reasoning <= 0.40


def test_shares_of_labels_follow_from_the_papers_tables() -> None:
    """Table 2's columns are Table 4's rows weighted by the mixes, for mixes 0 to 6."""
    mixes, labels = columns("mixes.csv"), columns("labels.csv")
    sources = ["web-crawl", "encyclopedia", "academia", "literature", "math", "code"]
    shares = np.stack([mixes[name] for name in sources], axis=1)[:7] / 100
    np.testing.assert_allclose(shares @ labels["reasoning"], mixes["printed_reasoning"][:7], atol=0.11)
    np.testing.assert_allclose(shares @ labels["visual"], mixes["printed_visual"][:7], atol=0.11)
