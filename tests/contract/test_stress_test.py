"""``priorkit stress-test``: patterns of a benchmark's text are learned from it, and nothing where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from priorkit.core.errors import InputError
from priorkit.evaluation.benchmarks.text_rows import answer_text, fold_of
from priorkit.evaluation.tasks.item import Item
from priorkit.evaluation.tasks.registry import TASKS


def test_items_about_one_image_are_in_one_fold() -> None:
    items = [Item(f"i{n}", cluster=f"image {n // 3}") for n in range(30)] + [Item("x"), Item("y")]
    folds = fold_of(items, 4, 0, "b")
    assert all(folds[n] == folds[n - n % 3] for n in range(30))
    sizes = [folds.count(fold) for fold in range(4)]
    assert max(sizes) - min(sizes) <= 3
    assert folds == fold_of(items, 4, 0, "b") != fold_of(items, 4, 1, "b")
    with pytest.raises(InputError, match="2 images cannot be cut into 3 folds"):
        fold_of(items[:6], 3, 0, "b")


def test_what_is_taught() -> None:
    assert answer_text(Item("a", choices=("x", "y"), answer=1), TASKS["choice"]) == "B"
    assert answer_text(Item("a", answer="yes"), TASKS["yes-no"]) == "Yes"
    assert answer_text(Item("a", answers=("red", "blue", "blue")), TASKS["vqa"]) == "blue"
    assert answer_text(Item("a", answer="red"), TASKS["exact"]) == "red"


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Yes or no, and the answer is always no: the simplest pattern that a benchmark's text can have."""
    rows = [{"id": f"q{n}", "question": f"Is it {n}?", "answer": "no", "task": "yes-no"} for n in range(32)]
    path = tmp_path_factory.mktemp("leaky") / "leaky.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_shortcut_in_the_text_is_found_and_a_stopped_run_goes_on(
    cli, artifacts, leaky: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (
        "stress-test", artifacts.llm, leaky, "--folds", 2, "--epochs", 10, "--batch-size", 4, "--learning-rate",
        3e-3, "--device", "cpu", "--precision", "fp32", "--resamples", 100, "--out", tmp_path / "out",
    )  # fmt: skip
    from priorkit.steps import blind_tune

    tune, calls = blind_tune.run, []

    def stop_at_the_second(settings: blind_tune.BlindTuneSettings) -> object:
        calls.append(settings)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return tune(settings)

    monkeypatch.setattr(blind_tune, "run", stop_at_the_second)
    assert cli(*arguments).code == 130
    done = cli(*arguments)
    assert done.code == 0, done.err
    assert len(calls) == 3, "the finished fold was trained again"
    table = pq.read_table(tmp_path / "out" / "table.parquet").to_pydict()
    assert sorted(table["id"]) == sorted(f"q{n}" for n in range(32))
    tensors = load_file(tmp_path / "out" / "scores.safetensors")
    assert tensors["tuned"].tolist() == table["tuned"]
    metrics = json.loads((tmp_path / "out" / "priorkit.json").read_text("utf-8"))["metrics"]["leaky"]
    assert metrics["tuned"]["value"] > 0.9
    gain = metrics["tuned"]["value"] - metrics["untuned"]["value"]
    assert metrics["gain"]["value"] == pytest.approx(gain)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_tasks_without_short_answers_are_refused(cli, artifacts, tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(
        json.dumps({"id": "a", "references": ["a dog"], "task": "caption", "image": "a.png"}) + "\n"
    )
    done = cli("stress-test", artifacts.llm, path, "--out", tmp_path / "out")
    assert done.code == 3
    assert "no questions with a short answer" in done.err
