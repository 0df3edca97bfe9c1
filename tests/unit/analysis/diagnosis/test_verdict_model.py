"""Fitted verdict models: parity with scikit-learn, their file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from priorkit.analysis.diagnosis.measures import measures_of
from priorkit.analysis.diagnosis.verdict_model import (
    LIMIT,
    VerdictModel,
    fit,
    fitted_verdicts,
    missing_measures,
    read_verdict_model,
    standardized,
)
from priorkit.analysis.diagnosis.verdicts import find_controls
from priorkit.core.errors import InputError
from tests.support.diagnosis_worlds import RULE, evidence_from, simulated

MEASURES = ("accuracy", "encoder_separability", "name_log_probability", "instructions")


def training(classes: int) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    causes = ["encoder", "language", "none"][:classes] * 30
    features = generator.normal(size=(len(causes), len(MEASURES)))
    features[:, 1] -= 2 * np.array([cause == "encoder" for cause in causes])
    return features, causes


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_scikit_learns(classes: int) -> None:
    features, causes = training(classes)
    model = fit(features, causes, MEASURES)
    target = np.array([list(model.classes).index(cause) for cause in causes])
    reference = LogisticRegression(C=1.0, max_iter=5000, tol=1e-8).fit(features, target)
    np.testing.assert_allclose(model.probabilities(features), reference.predict_proba(features), atol=1e-12)
    assert model.recipe["entities_by_cause"] == dict.fromkeys(model.classes, 30)


def test_a_file_gives_the_same_model(tmp_path: Path) -> None:
    features, causes = training(3)
    model = fit(features, causes, MEASURES, recipe={"worlds": ["a"]})
    model.save(tmp_path / "model.json")
    read = read_verdict_model(tmp_path / "model.json")
    assert np.array_equal(read.probabilities(features), model.probabilities(features))
    assert (list(read.classes), list(read.measures)) == (list(model.classes), list(MEASURES))
    assert read.recipe["worlds"] == ["a"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, "not a verdict model"),
        ({"classes": ["encoder"]}, "1 classes and 4 measures"),
        ({"classes": ["encoder", "language", "liver"]}, "unknown: liver"),
        ({"measures": ["accuracy", "a", "b", "c"]}, "unknown: a, b, c"),
        ({"intercepts": [1, 2, None]}, "not finite"),
        ({"coefficients": [["x"]]}, "not a verdict model: ValueError"),
    ],
)
def test_a_file_that_is_none_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    features, causes = training(3)
    fit(features, causes, MEASURES).save(tmp_path / "model.json")
    content = json.loads((tmp_path / "model.json").read_text()) | change
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        read_verdict_model(tmp_path / "model.json")
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


def test_a_model_of_other_worlds_finds_causes_and_its_probabilities_are_honest() -> None:
    names = (
        "accuracy",
        *(name for part in ("encoder", "language", "projector", "tuning") for name in measures_of(part)),
    )
    features, causes = [], []
    for seed in (1, 2):
        evidence, planted = simulated(seed)
        values = standardized(evidence, find_controls(evidence, (), RULE), names)
        for row, entity in enumerate(evidence.entities):
            if len(planted[entity]) < 2:
                features.append(values[row])
                causes.append(next(iter(planted[entity]), "none"))
    model = fit(np.stack(features), causes, names)
    evidence, planted = simulated(3)
    assert missing_measures(model, evidence) == []
    verdicts = fitted_verdicts(model, evidence, find_controls(evidence, (), RULE), RULE)
    single = [row for row, entity in enumerate(evidence.entities) if len(planted[entity]) < 2]
    right = [verdicts.verdict[row] == next(iter(planted[evidence.entities[row]]), "none") for row in single]
    assert np.mean(right) > 0.95
    assert np.nanmin(verdicts.probability) >= RULE.least_probability


def test_one_cause_is_too_few_and_missing_evidence_is_named() -> None:
    with pytest.raises(InputError, match="two causes at least, got none"):
        fit(np.zeros((3, 1)), ["none"] * 3, ("accuracy",))
    model = VerdictModel(("encoder", "none"), ("accuracy", "rank_e"), np.zeros((2, 2)), np.zeros(2))
    assert missing_measures(model, evidence_from(["a"], np.array([1]), {})) == ["rank_e"]
