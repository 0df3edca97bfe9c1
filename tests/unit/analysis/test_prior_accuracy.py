"""Joining ranks with answers, and what follows from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from priorkit.analysis.model_comparison import compare_models
from priorkit.analysis.prior_accuracy import (
    EntityAccuracy,
    PriorAccuracy,
    entity_accuracy,
    entity_benchmarks,
    join_by_entity,
    mean_accuracies,
    partial_correlation,
    pool_seeds,
    rank_bins,
    rank_correlations,
)
from priorkit.core.errors import InputError
from priorkit.data.results.evaluations import Evaluation, ScoredItem

DRAWS = {"seed": 3, "resamples": 200}
RANDOM = np.random.default_rng(5)
COUNT = 40
RANKS = np.sort(RANDOM.uniform(1, 90, COUNT))
KNOWN = np.clip(1 - RANKS / 100 + RANDOM.normal(0, 0.2, COUNT), 0, 1)
TABLE = {
    "entity": [f"e{n}" for n in range(COUNT)],
    "mean_rank": RANKS.tolist(),
    "mean_log_rank": np.log(RANKS).tolist(),
    "mrr": (1 / RANKS).tolist(),
}


def accuracy(values: np.ndarray) -> EntityAccuracy:
    names = TABLE["entity"]
    return EntityAccuracy(dict(zip(names, values.tolist(), strict=True)), dict.fromkeys(names, 2))


@pytest.fixture
def joined() -> PriorAccuracy:
    return join_by_entity(TABLE, {"first": accuracy(KNOWN), "second": accuracy(np.clip(KNOWN + 0.1, 0, 1))})


def answered(benchmark: str, entity: str, score: float | None) -> ScoredItem:
    return ScoredItem(benchmark, "0", score, {"entity": entity} if entity else {}, {})


def test_accuracy_is_the_mean_over_an_entitys_items() -> None:
    samples = [
        answered("a", "x", 1.0),
        answered("b", "x", 0.0),
        answered("b", "y", 0.5),
        answered("b", "", 1.0),
        answered("b", "y", None),
    ]
    evaluation = Evaluation(dict.fromkeys("abc"), samples)
    assert entity_benchmarks(evaluation) == ("a", "b")
    found = entity_accuracy(evaluation, ("a", "b"))
    assert found.accuracy == {"x": 0.5, "y": 0.5}
    assert found.items == {"x": 2, "y": 1}
    assert entity_accuracy(evaluation, ["b"]).accuracy == {"x": 0.0, "y": 0.5}
    with pytest.raises(InputError, match="no benchmark 'aa'"):
        entity_benchmarks(evaluation, ["aa"])
    with pytest.raises(InputError, match="name no entity"):
        entity_benchmarks(evaluation, ["c"])
    with pytest.raises(InputError, match="no item names an entity"):
        entity_benchmarks(Evaluation({}, []))


def test_entities_without_partner_are_counted() -> None:
    first = EntityAccuracy({"e0": 1.0, "e1": 0.0, "e2": 0.5, "e9": 1.0, "z": 1.0}, dict.fromkeys(["e0", "e1", "e2", "e9", "z"], 1))  # fmt: skip
    second = EntityAccuracy({"e0": 1.0, "e1": 0.0, "e2": 0.5}, dict.fromkeys(["e0", "e1", "e2"], 1))
    found = join_by_entity(TABLE, {"a": first, "b": second})
    assert found.entities == ("e0", "e1", "e2")
    assert (found.only_ranked, found.only_answered) == (COUNT - 3, 1)
    assert found.accuracy["a"].tolist() == [1.0, 0.0, 0.5]
    with pytest.raises(InputError, match="needs three"):
        join_by_entity(TABLE, {"a": EntityAccuracy({"e0": 1.0, "q": 0.0}, {"e0": 1, "q": 1})})


def test_seeds_are_pooled_by_their_items() -> None:
    """Three items right of four, and one of two: four of six. An entity that a seed lacks is left out."""
    first = EntityAccuracy({"x": 0.75, "y": 1.0}, {"x": 4, "y": 1})
    second = EntityAccuracy({"z": 0.5, "x": 0.5}, {"z": 2, "x": 2})
    found = pool_seeds([first, second])
    assert found.items == {"x": 6}
    assert found.accuracy["x"] == pytest.approx(4 / 6)
    assert pool_seeds([first]) == first


def test_coefficients_are_those_of_scipy(joined: PriorAccuracy) -> None:
    found = rank_correlations(joined, "first", **DRAWS)
    for measure, values in joined.measures.items():
        spearman, kendall = stats.spearmanr(values, KNOWN), stats.kendalltau(values, KNOWN)
        assert found[measure]["spearman"]["value"] == pytest.approx(spearman.statistic)
        assert found[measure]["spearman"]["p_value"] == pytest.approx(spearman.pvalue)
        assert found[measure]["kendall"]["value"] == pytest.approx(kendall.statistic)
    rank = found["mean_rank"]
    assert rank["spearman"]["value"] < 0 < found["mrr"]["spearman"]["value"]
    for method in ("spearman", "kendall"):
        assert rank[method]["low"] < rank[method]["value"] < rank[method]["high"]
    assert found["mrr"]["kendall"]["low"] < found["mrr"]["kendall"]["value"] < found["mrr"]["kendall"]["high"]


def test_what_is_undefined_is_null() -> None:
    constant = join_by_entity(TABLE, {"same": accuracy(np.ones(COUNT))})
    assert rank_correlations(constant, "same", **DRAWS)["mean_rank"]["spearman"]["value"] is None


def test_a_control_that_explains_all_leaves_nothing(joined: PriorAccuracy) -> None:
    noise = {"noise": np.random.default_rng(1).normal(size=COUNT)}
    plain = rank_correlations(joined, "first", **DRAWS)["mean_rank"]["spearman"]["value"]
    held = partial_correlation(joined, "first", noise, **DRAWS)
    assert held["value"] == pytest.approx(plain, abs=0.05)
    assert held["low"] < held["value"] < held["high"]
    explained = partial_correlation(joined, "first", {"rank": joined.measures["mean_rank"]}, **DRAWS)
    assert explained["value"] is None


def test_entities_without_the_control_are_left_out(joined: PriorAccuracy) -> None:
    control = np.arange(COUNT, dtype=float) % 7
    control[:10] = math.nan
    assert partial_correlation(joined, "first", {"c": control}, **DRAWS)["entities"] == COUNT - 10
    control[3:] = math.nan
    assert partial_correlation(joined, "first", {"c": control}, **DRAWS) is None


def test_bins_are_fixed_by_the_ranks_and_compared_in_pairs(joined: PriorAccuracy) -> None:
    bins = rank_bins(joined, 5, **DRAWS)
    assert [len(part.rows) for part in bins] == [8] * 5
    assert np.concatenate([part.rows for part in bins]).tolist() == list(range(COUNT))
    for part in bins:
        assert part.low == RANKS[part.rows[0]]
        assert part.accuracy["first"].value == pytest.approx(KNOWN[part.rows].mean())
        wanted = (joined.accuracy["second"] - joined.accuracy["first"])[part.rows]
        assert part.difference["second"].value == pytest.approx(wanted.mean())
        # Paired: the spread is that of the differences, far below that of either model.
        assert part.difference["second"].high - part.difference["second"].low <= np.ptp(wanted) + 1e-12
        assert "first" not in part.difference
    assert mean_accuracies(joined, **DRAWS)["first"].value == pytest.approx(KNOWN.mean())
    with pytest.raises(InputError, match="bins"):
        rank_bins(joined, COUNT + 1, **DRAWS)


def test_gains_are_compared_overall_by_bin_and_worst_against_best(joined: PriorAccuracy) -> None:
    bins = rank_bins(joined, 4, **DRAWS)
    (found,) = compare_models(joined, bins, **DRAWS)
    difference = joined.accuracy["second"] - joined.accuracy["first"]
    means = [difference[part.rows].mean() for part in bins]
    assert found["overall"]["value"] == pytest.approx(difference.mean())
    assert [part["value"] for part in found["bins"]] == pytest.approx(means)
    left = 1 - joined.accuracy["first"][bins[3].rows].mean()
    assert found["bins"][3]["share_of_error"] == pytest.approx(means[3] / left)
    worst = found["worst_minus_best"]
    assert worst["value"] == pytest.approx(means[3] - means[0])
    assert worst["low"] <= worst["value"] <= worst["high"]
