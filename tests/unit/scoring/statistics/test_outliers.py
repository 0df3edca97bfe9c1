"""Conformal p-values by their formula, their validity, and the false-discovery rate."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from priorkit.scoring.statistics.outliers import adjusted_p_values, bonferroni, conformal_p_values

numbers = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


@given(numbers, numbers)
def test_p_values_count_the_controls_that_are_as_low(values: list[float], controls: list[float]) -> None:
    expected = [(1 + sum(c <= value for c in controls)) / (1 + len(controls)) for value in values]
    np.testing.assert_allclose(conformal_p_values(values, controls), expected)


def test_what_is_undefined_is_not_tested() -> None:
    assert np.isnan(conformal_p_values([1.0], [])).all()
    found = conformal_p_values([np.nan, 0.0], [1.0, np.nan, -1.0])
    assert np.isnan(found[0])
    assert found[1] == 2 / 3
    combined = bonferroni([np.array([0.1, np.nan, 0.9]), np.array([0.4, np.nan, np.nan])])
    np.testing.assert_allclose(combined, [0.2, np.nan, 0.9])
    assert bonferroni([np.array([0.8]), np.array([0.9])]).tolist() == [1.0]


def test_adjusted_p_values_are_scipys() -> None:
    p_values = np.array([0.01, 0.04, 0.03, 0.5])
    with_gap = np.insert(p_values, 2, np.nan)
    adjusted = adjusted_p_values(with_gap)
    np.testing.assert_allclose(np.delete(adjusted, 2), false_discovery_control(p_values))
    assert np.isnan(adjusted[2])
    assert np.isnan(adjusted_p_values([np.nan])).all()


def test_the_false_discovery_rate_is_kept() -> None:
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(300):
        controls = generator.normal(size=100)
        values = np.concatenate([generator.normal(size=60), generator.normal(-4, 1, size=40)])
        found = adjusted_p_values(conformal_p_values(values, controls)) <= 0.1
        rates.append(found[:60].sum() / max(found.sum(), 1))
    # 60 % of the tests are of true null hypotheses, for which Benjamini-Hochberg keeps 0.06.
    assert np.mean(rates) < 0.08
