"""Gain and leakage as in MMStar, on the items of all evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from priorkit.analysis.leakage import leakage_of, lines_of_leakage, write_leakage
from priorkit.core.errors import InputError

SEEN = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0, "e": None}
BLIND = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 1.0, "e": 1.0}
BASE = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0, "x": 1.0}


def evaluation(folder: Path, scores: dict[str, float | None], name: str = "vqa") -> Path:
    folder.mkdir()
    rows = [{"benchmark": name, "id": item, "score": score} for item, score in scores.items()]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_gain_and_leakage(tmp_path: Path) -> None:
    seen, blind = evaluation(tmp_path / "seen", SEEN), evaluation(tmp_path / "blind", BLIND, "answers")
    base = evaluation(tmp_path / "base", BASE)
    found = leakage_of(seen, blind, base)
    result = found["vqa"]
    assert (result.items, result.unpaired) == (4, 1)
    assert (result.seen, result.blind, result.base) == (0.75, 0.5, 0.25)
    assert (result.gain.value, result.leakage) == (0.25, 0.25)
    assert result.answered_blind == pytest.approx(2 / 3)
    assert result.gain.low <= 0.25 <= result.gain.high
    write_leakage(found, tmp_path / "leakage.json")
    stored = json.loads((tmp_path / "leakage.json").read_text("utf-8"))["vqa"]
    assert stored["gain"]["value"] == 0.25
    assert "leakage 0.25" in lines_of_leakage(found)[0]


def test_a_base_that_is_better_leaves_no_leakage(tmp_path: Path) -> None:
    seen, blind = evaluation(tmp_path / "seen", SEEN), evaluation(tmp_path / "blind", BASE)
    result = leakage_of(seen, blind, evaluation(tmp_path / "base", BLIND))["vqa"]
    assert result.leakage == 0.0
    assert result.difference is not None
    assert result.difference.value == -0.25


def test_without_a_base_there_is_only_gain(tmp_path: Path) -> None:
    result = leakage_of(evaluation(tmp_path / "s", SEEN), evaluation(tmp_path / "b", BLIND), None)["vqa"]
    assert (result.base, result.leakage, result.difference) == (None, None, None)


def test_evaluations_that_share_nothing(tmp_path: Path) -> None:
    seen = evaluation(tmp_path / "seen", SEEN)
    with pytest.raises(InputError, match="no item of 'vqa' has a score in all"):
        leakage_of(seen, evaluation(tmp_path / "other", {"z": 1.0}), None)
    two = tmp_path / "two"
    evaluation(two, BLIND, "one")
    with (two / "samples.jsonl").open("a") as stream:
        stream.write(json.dumps({"benchmark": "two", "id": "a", "score": 1.0}) + "\n")
    with pytest.raises(InputError, match="no benchmark in common"):
        leakage_of(seen, two, None)
