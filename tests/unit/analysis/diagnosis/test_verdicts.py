"""The ordered tests: their parts by definition, and on simulated worlds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from priorkit.analysis.diagnosis.evidence import Evidence
from priorkit.analysis.diagnosis.verdicts import (
    DecisionRule,
    fewest_controls,
    find_controls,
    ordered_verdicts,
    part_p_values,
    works_probability,
)
from priorkit.scoring.statistics.outliers import adjusted_p_values
from tests.support.diagnosis_worlds import RULE, evidence_from, simulated


def test_an_entity_works_with_the_posterior_of_its_share() -> None:
    right, images = np.array([0, 3, 6, 0]), np.array([6, 6, 6, 0])
    works = works_probability(right, images, 0.5)
    assert works[:3] == pytest.approx([1 - beta(0.5, 6.5).cdf(0.5), 0.5, 1 - beta(6.5, 0.5).cdf(0.5)])
    assert works[3] == pytest.approx(0.5)


def test_verdicts_find_planted_causes() -> None:
    evidence, causes = simulated(0)
    verdicts = ordered_verdicts(evidence, find_controls(evidence, (), RULE), RULE)
    single = [
        (causes[name], verdict) for name, verdict in zip(evidence.entities, verdicts.verdict, strict=True)
    ]
    right = [
        verdict == (next(iter(cause)) if cause else "none") for cause, verdict in single if len(cause) < 2
    ]
    assert np.mean(right) > 0.9
    double = [verdict in cause for cause, verdict in single if len(cause) == 2]
    assert np.mean(double) > 0.9


def test_what_comes_first_is_the_verdict_and_all_weak_parts_are_listed() -> None:
    evidence, causes = simulated(1)
    verdicts = ordered_verdicts(evidence, find_controls(evidence, (), RULE), RULE)
    weak = [
        verdicts.weak_parts[row]
        for row, name in enumerate(evidence.entities)
        if causes[name] == {"encoder", "language"}
    ]
    assert sum(list(parts[:2]) == ["encoder", "language"] for parts in weak) > 0.8 * len(weak)


def test_false_discoveries_are_kept_where_no_part_is_weak() -> None:
    rates = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        names = [f"entity {number}" for number in range(160)]
        right = np.array([6] * 100 + [0] * 60)
        measures = {
            name: generator.normal(size=160) for name in ("encoder_separability", "name_log_probability")
        }
        evidence = evidence_from(names, right, measures)
        verdicts = ordered_verdicts(evidence, find_controls(evidence, (), RULE), RULE)
        rates.append(np.mean([verdict in ("encoder", "language") for verdict in verdicts.verdict[100:]]) > 0)
    # All null hypotheses are true: any discovery is false, and each of two parts may have one in 10 % of the worlds.
    assert np.mean(rates) <= 0.35


def test_without_controls_nothing_is_decided_about_failing_entities() -> None:
    evidence, _ = simulated(0, healthy=0)
    controls = find_controls(evidence, (), RULE)
    assert not controls.any()
    verdicts = ordered_verdicts(evidence, controls, RULE)
    assert set(verdicts.verdict) == {"not decidable"}
    assert np.isnan(verdicts.probability).all()


def test_named_controls_are_compared_with_and_not_tested() -> None:
    evidence, _ = simulated(0)
    named = list(evidence.entities[:50])
    controls = find_controls(evidence, named, RULE)
    assert controls.sum() == 50
    verdicts = ordered_verdicts(evidence, controls, RULE)
    assert all(np.isnan(values[:50]).all() for values in verdicts.p_values.values())


def test_p_values_are_of_the_part_and_probabilities_one_minus_the_adjusted_ones() -> None:
    names = list("abcdefgh") + [f"control {number}" for number in range(40)]
    right = np.array([0] * 8 + [6] * 40)
    values = np.concatenate([[-9.0] * 4, [0.5] * 4, np.linspace(0, 1, 40)])
    evidence = evidence_from(names, right, {"name_log_probability": values})
    controls = find_controls(evidence, (), RULE)
    p_values = part_p_values(evidence, controls, ~controls)["language"]
    assert p_values[:4].tolist() == [1 / 41] * 4
    assert p_values[4] == 21 / 41
    verdicts = ordered_verdicts(evidence, controls, RULE)
    expected = adjusted_p_values(p_values)
    assert verdicts.verdict[:8] == ["language"] * 4 + ["not decidable"] * 4
    np.testing.assert_allclose(verdicts.probability[:4], 1 - expected[:4])
    assert verdicts.verdict[8:] == ["none"] * 40


@pytest.mark.parametrize(("rate", "fewest"), [(0.1, 29), (0.05, 59)])
def test_fewest_controls_reach_the_rate(rate: float, fewest: int) -> None:
    evidence, _ = simulated(0)
    rule = DecisionRule(false_discovery_rate=rate)
    assert fewest_controls(evidence, rule) == fewest
    # Three measures of a part, one entity: its smallest p-value is 3 / (1 + controls).
    assert 3 / (1 + fewest) <= rate < 3 / fewest


def test_an_accuracy_between_is_not_decided() -> None:
    evidence = evidence_from(["a", "b"], np.array([3, 6]), {})
    verdicts = ordered_verdicts(evidence, find_controls(evidence, (), RULE), RULE)
    assert verdicts.verdict == ["not decidable", "none"]
    assert isinstance(evidence, Evidence)
