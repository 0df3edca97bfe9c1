from __future__ import annotations

import json
from pathlib import Path

import pytest

import priorkit as pk


def test_a_model_is_evaluated_into_a_temporary_folder(artifacts, tmp_path: Path) -> None:
    rows = [
        {"question": f"{number} is", "choices": ["one", "two"], "answer": number % 2} for number in range(6)
    ]
    file = tmp_path / "numbers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = pk.evaluate(artifacts.llm, file, limit=4)
    (metrics,) = found.metrics.values()
    assert 0 <= metrics["accuracy"].low <= metrics["accuracy"].value <= metrics["accuracy"].high <= 1
    assert len(found.samples()) == 4
    assert found.path.is_dir()
    assert tmp_path not in found.path.parents


def test_a_model_is_diagnosed(artifacts) -> None:
    found = pk.diagnose(artifacts.mllm, artifacts.images, resamples=100, device="cpu", precision="fp32")
    assert len(found.table) == found.results["entities"] == 36
    assert found.path.is_dir()


def test_models_are_merged(artifacts, tmp_path: Path) -> None:
    made = pk.merge(
        [artifacts.llm, artifacts.llm], method="linear", weight=[0.5, 0.5], out=tmp_path / "merged"
    )
    assert made.kind == "llm"


def test_an_unknown_method_names_the_parameter(artifacts, tmp_path: Path) -> None:
    with pytest.raises(pk.UsageError, match=r"^method: "):
        pk.merge([artifacts.llm], method="teis", out=tmp_path / "merged")
