"""Fitted verdict models: parity with scikit-learn, their file, and what it refuses."""

from __future__ import annotations

import json
from itertools import compress, product
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from priorkit.analysis.diagnosis.measures import PARTS, measures_of
from priorkit.analysis.diagnosis.verdict_model import (
    LIMIT,
    PartRegression,
    VerdictModel,
    fit,
    fitted_verdicts,
    missing_measures,
    read_verdict_model,
    single_causes,
    standardized,
)
from priorkit.analysis.diagnosis.verdicts import find_controls
from priorkit.core.errors import InputError
from tests.support.diagnosis_worlds import RULE, evidence_from, simulated

MEASURES = ("encoder_separability", "name_log_probability", "instructions")


def training() -> tuple[np.ndarray, list[frozenset[str]]]:
    """Evidence of 120 entities whose parts are at fault independently; a weak encoder lowers all of it."""
    generator = np.random.default_rng(0)
    parts = ("encoder", "language", "tuning")
    faults = generator.random((120, 3)) < 0.5
    features = generator.normal(size=(120, 3)) - 2 * faults
    features[:, 2] -= faults[:, 0]
    return features, [frozenset(compress(parts, row)) for row in faults]


def test_probabilities_are_scikit_learns() -> None:
    features, causes = training()
    model = fit(features, causes, MEASURES)
    assert list(model.parts) == ["encoder", "language", "tuning"]
    found = model.faults(features, MEASURES)
    # What feeds a part is evidence too: encoder and language of tuning.
    read = {"encoder": [0], "language": [1], "tuning": [0, 1, 2]}
    for number, (part, columns) in enumerate(read.items()):
        target = [part in planted for planted in causes]
        reference = LogisticRegression(C=3.0, class_weight="balanced", max_iter=5000, tol=1e-8)
        reference.fit(features[:, columns], target)
        expected = reference.predict_proba(features[:, columns])[:, 1]
        np.testing.assert_allclose(found[:, number], expected, atol=1e-12)
        assert model.recipe["entities_by_part"][part] == sum(target)
    assert model.recipe["entities_without_cause"] == sum(not planted for planted in causes)


def test_single_causes_are_products_and_leave_the_rest_to_several() -> None:
    faults = np.random.default_rng(0).random((20, 4))
    found = single_causes(faults)
    several = np.zeros(20)
    for pattern in product((0, 1), repeat=4):
        chance = np.prod(np.where(pattern, faults, 1 - faults), axis=1)
        if sum(pattern) > 1:
            several += chance
        else:
            column = pattern.index(1) if sum(pattern) else 4
            np.testing.assert_allclose(found[:, column], chance)
    np.testing.assert_allclose(found.sum(1) + several, 1)


def test_a_file_gives_the_same_model(tmp_path: Path) -> None:
    features, causes = training()
    model = fit(features, causes, MEASURES, recipe={"worlds": ["a"]})
    model.save(tmp_path / "model.json")
    read = read_verdict_model(tmp_path / "model.json")
    assert np.array_equal(read.faults(features, MEASURES), model.faults(features, MEASURES))
    assert (list(read.parts), read.measures) == (list(model.parts), list(MEASURES))
    assert read.recipe["worlds"] == ["a"]


PART = {"intercept": 0.0, "coefficients": {"rank_e": 1.0}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "priorkit verdict model 2"}, "earlier format has to be fitted again"),
        ({"parts": {}}, "has no parts"),
        ({"parts": {"liver": PART}}, "unknown: liver"),
        ({"parts": {"encoder": PART | {"coefficients": {"a": 1, "b": 2}}}}, "unknown: a, b"),
        ({"parts": {"encoder": PART | {"coefficients": {}}}}, "encoder: no coefficients"),
        ({"parts": {"encoder": PART | {"intercept": None}}}, "not a verdict model: TypeError"),
        ({"parts": {"encoder": PART | {"intercept": "nan"}}}, "encoder: a coefficient is not finite"),
        ({"parts": {"encoder": {"coefficients": {}}}}, "not a verdict model: KeyError"),
        ({"parts": ["encoder"]}, "not a verdict model: AttributeError"),
    ],
)
def test_a_file_that_is_none_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    features, causes = training()
    fit(features, causes, MEASURES).save(tmp_path / "model.json")
    content = json.loads((tmp_path / "model.json").read_text()) | change
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as found:
        read_verdict_model(tmp_path / "model.json")
    assert words in str(found.value)
    with pytest.raises(InputError, match="not a readable verdict model"):
        read_verdict_model(tmp_path / "absent.json")


def test_evidence_is_in_units_of_the_controls() -> None:
    values = np.array([-1.0, 0.0, 1.0, 30.0, np.nan, -0.5])
    evidence = evidence_from(list("abcdef"), np.array([6, 6, 6, 0, 0, 0]), {"fact_margin": values})
    controls = np.array([True, True, True, False, False, False])
    found = standardized(evidence, controls, ("accuracy", "fact_margin"))
    assert found[:, 0].tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(found[:, 1], [-1 / 1.4826, 0, 1 / 1.4826, LIMIT, 0, -0.5 / 1.4826])
    constant = evidence_from(list("abc"), np.array([6, 6, 6]), {"fact_margin": np.ones(3)})
    assert standardized(constant, np.ones(3, dtype=bool), ("fact_margin",)).tolist() == [[0], [0], [0]]
    assert standardized(evidence, np.zeros(6, dtype=bool), ("fact_margin",)).tolist() == [[0]] * 6


def test_reciprocal_ranks_are_measured_by_their_ratio_to_the_controls() -> None:
    values = np.array([0.5, 0.5, 1.0, 0.05, 0.001, np.nan])
    evidence = evidence_from(list("abcdef"), np.array([6, 6, 6, 0, 0, 0]), {"rank_e": values})
    controls = np.array([True, True, True, False, False, False])
    found = standardized(evidence, controls, ("rank_e",))[:, 0]
    np.testing.assert_allclose(found, [0, 0, np.log(2), -np.log(10), -LIMIT, 0])


def model_of(*seeds: int) -> VerdictModel:
    names = tuple(name for part in PARTS for name in measures_of(part))
    features, causes = [], []
    for seed in seeds:
        evidence, planted = simulated(seed)
        features.append(standardized(evidence, find_controls(evidence, (), RULE), names))
        causes += [planted[entity] for entity in evidence.entities]
    return fit(np.concatenate(features), causes, names)


def test_a_model_of_other_worlds_finds_causes_and_its_probabilities_are_honest() -> None:
    model = model_of(1, 2)
    evidence, planted = simulated(3)
    assert missing_measures(model, evidence) == []
    verdicts = fitted_verdicts(model, evidence, find_controls(evidence, (), RULE), RULE)
    single = [row for row, entity in enumerate(evidence.entities) if len(planted[entity]) < 2]
    right = [verdicts.verdict[row] == next(iter(planted[evidence.entities[row]]), "none") for row in single]
    assert np.mean(right) > 0.95
    assert np.nanmin(verdicts.probability) >= 0.5


def test_several_weak_parts_leave_the_verdict_open_and_are_named() -> None:
    evidence, planted = simulated(3)
    verdicts = fitted_verdicts(model_of(1, 2), evidence, find_controls(evidence, (), RULE), RULE)
    several = [row for row, entity in enumerate(evidence.entities) if len(planted[entity]) == 2]
    assert len(several) == 20
    assert np.mean([verdicts.verdict[row] == "not decidable" for row in several]) > 0.9
    assert np.mean([verdicts.weak_parts[row] == ["encoder", "language"] for row in several]) > 0.9
    assert all(
        np.isnan(verdicts.probability[row]) for row in several if verdicts.verdict[row] == "not decidable"
    )


def test_what_works_needs_no_remedy() -> None:
    evidence = evidence_from(
        list("abcd"), np.array([6, 6, 4, 2]), {"rank_e": np.array([1.0, 1.0, 0.01, 0.01])}
    )
    controls = np.array([True, True, False, False])
    model = VerdictModel({"encoder": PartRegression({"rank_e": -2.0}, -1.0)})
    verdicts = fitted_verdicts(model, evidence, controls, RULE)
    assert verdicts.verdict == ["none", "none", "none", "encoder"]
    assert verdicts.weak_parts == [[], [], ["encoder"], ["encoder"]]
    np.testing.assert_allclose(verdicts.probability[:3], verdicts.works[:3])
    np.testing.assert_allclose(verdicts.faults["encoder"][3], 1 / (1 + np.exp(1 - 2 * np.log(100))))


def test_what_cannot_be_fitted_is_refused_and_missing_evidence_is_named() -> None:
    for causes in ([frozenset()] * 3, [frozenset({"encoder"})] * 3):
        with pytest.raises(InputError, match="a part is at fault, and others"):
            fit(np.zeros((3, 1)), causes, ("rank_e",))
    # A part is not judged by the evidence of those that feed it only.
    features, causes = training()
    assert list(fit(features[:, :2], causes, MEASURES[:2]).parts) == ["encoder", "language"]
    model = VerdictModel({"encoder": PartRegression({"rank_e": 1.0}, 0.0)})
    assert missing_measures(model, evidence_from(["a"], np.array([1]), {})) == ["rank_e"]
