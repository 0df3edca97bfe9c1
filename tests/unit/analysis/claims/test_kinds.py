"""The kinds of effect against closed forms and references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from priorkit.analysis.claims.base import EFFECT, Term, UnitScores
from priorkit.analysis.claims.contrasts import Difference, ErrorReduction, Saturation
from priorkit.analysis.claims.correlation import PartialCorrelation, partial_rank_correlations
from priorkit.analysis.claims.estimation import measure_effect
from priorkit.analysis.claims.registry import KINDS
from priorkit.analysis.claims.variance_shares import omega_squared
from priorkit.scoring.statistics.correlation import partial_spearman, spearman


def one_seed(*means: float) -> np.ndarray:
    """Statistics ``[1, 1, terms]`` of one seed without resampling."""
    return np.array(means)[None, None]


def scores_of(values: np.ndarray) -> UnitScores:
    """Scores ``[seeds, terms, units]`` with one item per unit."""
    seeds, terms, units = values.shape
    return UnitScores(
        [str(number + 1) for number in range(seeds)], [Term(f"arm {number}") for number in range(terms)],
        values[:, :, None], np.ones((seeds, terms, 1, units)), np.ones((terms, 1)),
        np.zeros(units, dtype=np.int64), units, "image",
    )  # fmt: skip


CONTRAST = {"name": "n", "smallest": 0.1, "benchmarks": "naming"}


def test_a_difference_is_a_weighted_sum_of_means() -> None:
    measure = Difference(**CONTRAST, contrast=[{"evaluation": "a"}, {"evaluation": ["b", "c"], "weight": -1}])  # pyright: ignore
    assert [term.label for term in measure.terms()] == ["a", "b", "c"]
    found = measure.effects(one_seed(0.9, 0.2, 0.4))
    assert found[EFFECT] == pytest.approx(0.6)
    assert {name: values[0] for name, values in found.items() if name != EFFECT} == {
        "a": 0.9,
        "b": 0.2,
        "c": 0.4,
    }


def test_an_error_reduction_is_the_share_of_what_was_left() -> None:
    gains = [{"before": "a", "after": "b"}, {"before": "c", "after": "d", "weight": -1}]
    measure = ErrorReduction(**CONTRAST, gains=gains)  # pyright: ignore
    found = measure.effects(one_seed(0.5, 0.75, 0.2, 0.4))
    assert found[EFFECT] == pytest.approx(0.25 / 0.5 - 0.2 / 0.8)
    assert math.isnan(measure.effects(one_seed(1.0, 1.0, 0.2, 0.4))[EFFECT][0])


def test_saturation_is_what_is_reached_beyond_proportion() -> None:
    measure = Saturation(
        **CONTRAST, evaluations=["a", "b", "c", "d", "e"], shares=[0, 0.1, 0.2, 0.3, 0.4], reached=0.1
    )  # pyright: ignore
    in_proportion = measure.effects(one_seed(0.2, 0.3, 0.4, 0.5, 0.6))
    assert in_proportion[EFFECT] == pytest.approx(0.0)
    early = measure.effects(one_seed(0.2, 0.55, 0.6, 0.6, 0.6))
    assert early[EFFECT] == pytest.approx(0.35 / 0.4 - 0.25)
    assert early["total gain"] == pytest.approx(0.4)


def test_saturation_without_a_gain_decides_nothing() -> None:
    measure = Saturation(**CONTRAST, evaluations=["a", "b", "c"], shares=[0, 1, 2], reached=1)  # pyright: ignore
    generator = np.random.default_rng(1)
    flat = (generator.random((3, 3, 100)) < 0.5).astype(float)
    found = measure_effect(measure, scores_of(flat), seed=1, resamples=200, decides=True)
    assert found.verdict == "undecided"
    assert "total gain" in found.reason
    assert "not surely above 0" in found.reason


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("controls", [0, 1, 2])
def test_partial_correlations_are_spearmans(controls: int, tied: bool) -> None:
    generator = np.random.default_rng(controls)
    table = generator.standard_normal((2 + controls, 30)) + generator.standard_normal(30)
    table = table.round() if tied else table
    draws = generator.integers(0, 30, (20, 30))
    weights = np.stack([np.bincount(draw, minlength=30) for draw in draws]).astype(float)
    found = partial_rank_correlations(table, weights)
    for draw, (partial, plain) in zip(draws, found, strict=True):
        expected = partial_spearman(table[0, draw], table[1, draw], list(table[2:, draw]))
        assert partial == pytest.approx(expected.coefficient)
        assert plain == pytest.approx(spearman(table[0, draw], table[1, draw]).coefficient)


def test_a_perfect_correlation_is_one_and_constants_hold_nothing_fixed() -> None:
    line = np.arange(12.0)
    noise = np.random.default_rng(0).random(12)
    ones = np.ones((1, 12))
    assert partial_rank_correlations(np.stack([line, 3 * line, noise]), ones)[0] == pytest.approx([1, 1])
    constant = partial_rank_correlations(np.stack([line, noise, np.ones(12)]), ones)[0]
    assert constant[0] == pytest.approx(constant[1])
    assert np.isnan(partial_rank_correlations(np.stack([np.ones(12), noise]), ones)).all()
    assert math.isnan(partial_rank_correlations(np.stack([line, noise, line]), ones)[0, 0])


def test_a_variable_may_be_reversed() -> None:
    prior = {"ranks": "ranks", "column": "mean_rank"}
    measures = [
        PartialCorrelation(
            name="n", benchmarks="naming", x={**prior, "weight": weight}, y={"evaluation": "a"}
        )  # pyright: ignore
        for weight in (1, -1)
    ]
    scores = scores_of(np.random.default_rng(3).random((1, 2, 20)))
    values = [measure.statistics(scores, np.ones((1, 20)))[0, 0, 0] for measure in measures]
    assert values[0] == pytest.approx(-values[1])


def test_omega_squared_is_that_of_the_analysis_of_variance() -> None:
    """Against sums of squares from models with dummy variables."""
    generator = np.random.default_rng(4)
    values = generator.standard_normal((5, 2, 3)) + np.array([0.0, 2.0])[:, None]
    rows, columns = (
        np.broadcast_to(np.arange(2)[:, None], (5, 2, 3)),
        np.broadcast_to(np.arange(3), (5, 2, 3)),
    )
    dummies = {
        "a": np.stack([(rows == level).ravel() for level in range(2)]).astype(float),
        "b": np.stack([(columns == level).ravel() for level in range(3)]).astype(float),
        "ab": np.stack([((rows == i) & (columns == j)).ravel() for i in range(2) for j in range(3)]).astype(
            float
        ),
    }

    def explained(*names: str) -> float:
        design = np.vstack([np.ones(30), *(dummies[name] for name in names)]).T
        fitted = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
        return float(((fitted - values.mean()) ** 2).sum())

    total = float(((values - values.mean()) ** 2).sum())
    error = (total - explained("ab")) / 24
    expected = [
        (explained("a") - error) / (total + error),
        (explained("b") - 2 * error) / (total + error),
        (explained("ab") - explained("a", "b") - 2 * error) / (total + error),
    ]
    assert [float(share) for share in omega_squared(values)] == pytest.approx(expected)


def test_shares_of_variance_are_exact_without_noise_and_undefined_for_one_seed() -> None:
    cells = np.array([[0.2, 0.2], [0.6, 0.6]])
    first, second, both = omega_squared(np.stack([cells, cells]))
    assert (float(first), float(second), float(both)) == pytest.approx((1, 0, 0))
    assert math.isnan(omega_squared(cells[None])[0])
    assert math.isnan(omega_squared(np.full((3, 2, 2), 0.5))[0])


def test_noise_gives_no_share_on_average() -> None:
    noise = np.random.default_rng(8).standard_normal((4000, 3, 2, 2))
    assert np.mean(omega_squared(noise), axis=1) == pytest.approx([0, 0, 0], abs=0.02)


def test_pairs_stay_pairs() -> None:
    """Two arms that differ by a constant have an interval without width, however much the items vary."""
    items = np.random.default_rng(2).random(60)
    measure = Difference(**CONTRAST, contrast=[{"evaluation": "a"}, {"evaluation": "b", "weight": -1}])  # pyright: ignore
    scores = scores_of(np.tile(np.stack([items + 0.2, items]), (3, 1, 1)))
    found = measure_effect(measure, scores, seed=1, resamples=200, decides=True)
    assert (found.effect.low, found.effect.high) == pytest.approx((0.2, 0.2))
    assert found.verdict == "supported"
    assert found.per_seed == {"1": pytest.approx(0.2), "2": pytest.approx(0.2), "3": pytest.approx(0.2)}


def test_balanced_cells_have_the_same_weights_for_all_terms() -> None:
    scores = scores_of(np.zeros((1, 2, 4)))
    sums = np.zeros((1, 2, 2, 4))
    counts = np.zeros((1, 2, 2, 4))
    counts[0, 0] = [[1, 1, 1, 0], [0, 0, 0, 1]]
    counts[0, 1] = [[1, 0, 0, 0], [0, 1, 1, 1]]
    sums[0, :, 0] = counts[0, :, 0]  # all are right in the first bin, none in the second
    weights = np.array([[0.5, 0.5], [0.5, 0.5]])
    balanced = UnitScores(scores.seeds, scores.terms, sums, counts, weights, scores.strata, 4, "image")
    assert balanced.means(np.ones((1, 4)))[0, 0] == pytest.approx([0.5, 0.5])


def test_resampling_draws_as_many_units_as_there_are_in_every_stratum() -> None:
    scores = scores_of(np.zeros((1, 1, 5)))
    scores = UnitScores(
        scores.seeds, scores.terms, scores.sums, scores.counts, scores.cell_weights,
        np.array([0, 0, 1, 1, 1]), 5, "image",
    )  # fmt: skip
    weights = scores.resampling(7, 50)
    assert weights.shape == (51, 5)
    assert (weights[0] == 1).all()
    assert (weights[:, :2].sum(1) == 2).all()
    assert (weights[:, 2:].sum(1) == 3).all()
    assert (weights == scores.resampling(7, 50)).all()
    assert (weights != scores.resampling(8, 50)).any()


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("difference", {"contrast": [{"evaluation": "a"}, {"evaluation": "b"}]}, "add up to 0, got 2"),
        ("saturation", {"evaluations": ["a", "b"], "shares": [0, 1, 2], "reached": 1}, "at least 3"),
        ("saturation", {"evaluations": ["a", "b", "c"], "shares": [0, 2, 1], "reached": 2}, "should increase"),
        ("saturation", {"evaluations": ["a", "b", "c"], "shares": [0, 1, 2], "reached": 2}, "between the first"),
        ("variance-shares", {"factors": ["a", "b"], "cells": [["a", "b"], ["c"]]}, "same length"),
        ("partial-correlation", {"x": {"column": "c", "evaluation": "a"}, "y": {"column": "c"}}, "a variable is"),
        ("partial-correlation", {"x": {"column": "c"}, "y": {"column": "d"}, "balance": "e"}, "no effect"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(kind: str, keys: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KINDS[kind](name="n", **keys)  # pyright: ignore
