"""Evidence per entity: means, shares and counts with their intervals."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest

from priorkit.analysis.diagnosis.evidence import Estimates, Evidence, census, means, shares
from priorkit.scoring.statistics.intervals import bootstrap_mean

NAN = math.nan


def test_means_have_the_bootstrap_interval_of_their_entity() -> None:
    values, entity_of = [1.0, 2, 4, NAN, 7, 5], [0, 0, 0, 0, 1, 3]
    found = means(values, entity_of, 4, seed=5, resamples=200)
    expected = bootstrap_mean([1, 2, 4], seed=5, resamples=200)
    assert (found.value[0], found.low[0], found.high[0]) == (expected.value, expected.low, expected.high)
    assert found.value[[1, 3]].tolist() == [7, 5]
    assert np.isnan(found.low[1:]).all()
    assert np.isnan(found.value[2])


def test_shares_have_wilsons_interval_which_has_a_width_at_the_ends() -> None:
    found = shares([1, 1, 0, 0, NAN], [0, 0, 0, 1, 1], 3)
    wilson = binomtest(2, 3).proportion_ci(method="wilson")
    assert (found.low[0], found.high[0]) == (wilson.low, wilson.high)
    assert found.value[:2].tolist() == [2 / 3, 0]
    assert found.high[1] > 0.5
    assert np.isnan(found.value[2])


def test_counts_are_exact_and_columns_have_none_where_undefined() -> None:
    counts = census([3, 0])
    assert counts.low.tolist() == counts.high.tolist() == [3, 0]
    undefined = Estimates(*np.full((3, 2), NAN))
    evidence = Evidence(
        ["a", "b"], np.array([1, 2]), np.array([1, 0]), counts, {"instructions": counts, "rank_e": undefined}
    )
    columns = evidence.columns()
    assert columns["instructions"] == [3, 0]
    assert columns["rank_e"] == columns["rank_e_low"] == [None, None]
    assert columns["images"] == [1, 2]
