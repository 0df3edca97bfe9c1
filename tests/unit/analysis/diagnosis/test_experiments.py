"""Models across worlds, gains of remedies and forecasts, on simulated worlds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from priorkit.analysis.diagnosis.experiments import (
    RemediedWorld,
    across_worlds,
    forecast,
    remedy_gains,
    shared_measures,
)
from priorkit.analysis.diagnosis.stored import read_diagnosis
from priorkit.core.errors import InputError
from tests.support.diagnosis_worlds import IMAGES, RULE, evidence_from, simulated, stored, stored_world


def test_fitted_models_are_compared_across_worlds_with_baselines(tmp_path: Path) -> None:
    worlds = [stored_world(tmp_path / str(seed), seed) for seed in (1, 2)]
    found = across_worlds(worlds, RULE, seed=0, resamples=100)
    assert set(found) == {
        "ordered tests",
        "fitted",
        "fitted without counts of data",
        "rank_e only",
        "blind accuracy only",
        "majority",
    }
    scores = {method: entry["balanced_accuracy"]["value"] for method, entry in found.items()}
    assert scores["fitted"] > 0.9
    assert scores["ordered tests"] > 0.8
    assert scores["majority"] == pytest.approx(0.2)
    assert scores["fitted"] > scores["rank_e only"] > scores["majority"]
    assert found["fitted"]["entities"] == 2 * len(worlds[0][0].evidence.entities)
    assert found["fitted"]["calibration_error"] < 0.1
    assert scores["fitted"] >= scores["fitted without counts of data"] > scores["rank_e only"]


def test_one_world_has_only_the_ordered_tests(tmp_path: Path) -> None:
    assert set(across_worlds([stored_world(tmp_path / "one", 1)], RULE, seed=0, resamples=100)) == {
        "ordered tests"
    }


def test_shared_measures_are_evidence_that_all_have(tmp_path: Path) -> None:
    evidence, _ = simulated(0)
    fewer = replace(evidence, measures={"rank_e": evidence.measures["rank_e"]})
    diagnoses = [stored(tmp_path / "a", evidence), stored(tmp_path / "b", fewer)]
    assert shared_measures(diagnoses) == ["rank_e"]


def test_gains_of_remedies_form_a_table(tmp_path: Path) -> None:
    evidence, _ = simulated(1)
    before = stored(tmp_path / "before", evidence)
    verdicts = before.table["verdict"]
    after = {}
    for remedy in ("encoder", "language"):
        right = np.where([verdict == remedy for verdict in verdicts], IMAGES, evidence.right)
        after[remedy] = stored(tmp_path / remedy, evidence_from(list(evidence.entities), right, {}))
    causes = {name: frozenset({"encoder"}) for name in list(evidence.entities)[:80]}
    world = RemediedWorld(before, after, causes)
    found = remedy_gains([world], seed=0, resamples=100)
    assert found["gains"]["encoder"]["encoder"]["value"] > 0.8
    assert found["gains"]["encoder"]["language"]["value"] == 0
    assert found["best"]["language"] == "language"
    assert found["recommended_is_best"]["value"] == 1
    assert found["recommended_is_best_of_one_cause"]["value"] == 1
    assert sum(found["verdicts"].values()) == len(evidence.entities)
    unknown = RemediedWorld(before, after)
    assert remedy_gains([unknown], seed=0, resamples=100)["recommended_is_best_of_one_cause"] is None
    fewer = stored(tmp_path / "fewer", evidence_from(["other"], np.array([1]), {}))
    with pytest.raises(InputError, match="entities are missing, such as 'entity 0'"):
        remedy_gains([RemediedWorld(before, {"encoder": fewer})], seed=0)
    with pytest.raises(InputError, match="expected the remedies encoder, language here too, got encoder"):
        remedy_gains([world, RemediedWorld(before, {"encoder": fewer})], seed=0)


def test_gains_of_several_worlds_are_those_of_all_their_entities(tmp_path: Path) -> None:
    worlds = []
    for seed in (1, 2):
        evidence, _ = simulated(seed)
        before = stored(tmp_path / f"before-{seed}", evidence)
        right = np.full(len(evidence.entities), 3 * (seed - 1))
        after = stored(tmp_path / f"after-{seed}", evidence_from(list(evidence.entities), right, {}))
        worlds.append(RemediedWorld(before, {"encoder": after}))
    one, other, both = (
        remedy_gains(some, seed=0, resamples=100) for some in (worlds[:1], worlds[1:], worlds)
    )
    for verdict, row in both["gains"].items():
        counts = [found["verdicts"].get(verdict, 0) for found in (one, other)]
        means = [
            found["gains"].get(verdict, {"encoder": {"value": 0}})["encoder"]["value"]
            for found in (one, other)
        ]
        assert row["encoder"]["value"] == pytest.approx(np.average(means, weights=counts))
    assert both["entities"] == one["entities"] + other["entities"]


def test_a_forecast_from_evidence_beats_the_mean_where_evidence_decides(tmp_path: Path) -> None:
    evidence, _ = simulated(2)
    after = stored(tmp_path / "after", evidence)
    # Before tuning nothing is named right; the rest of the evidence is there already.
    before = stored(tmp_path / "before", evidence_from(
        list(evidence.entities), np.zeros(len(evidence.entities), dtype=np.int64),
        {name: estimates.value for name, estimates in evidence.measures.items()},
    ))  # fmt: skip
    found = forecast(before, after, seed=0, resamples=200)
    errors = {name: entry["value"] for name, entry in found["mean_absolute_error"].items()}
    assert errors["evidence"] < errors["rank_e"] < errors["mean"]
    assert found["more_than_from_evidence"]["mean"]["low"] > 0
    few = stored(tmp_path / "few", evidence_from(["entity 0"], np.array([1]), {}))
    with pytest.raises(InputError, match="1 entities are too few"):
        forecast(before, few)


def test_a_folder_that_holds_no_diagnosis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no table\.parquet"):
        read_diagnosis(tmp_path)
