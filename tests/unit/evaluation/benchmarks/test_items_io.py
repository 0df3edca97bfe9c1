"""Finding and reading benchmarks and predictions; everything that can be wrong with a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from priorkit.core.errors import InputError
from priorkit.core.inputs import resolve
from priorkit.data.images.decoding import ImageRef, decode
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource, find_benchmarks
from priorkit.evaluation.benchmarks.items_io import read_items, read_predictions
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def find(path: Path, task: str | None = None) -> list[BenchmarkSource]:
    item = resolve(str(path), "benchmarks.0", ("benchmark", "world"))
    return find_benchmarks({item.setting: item}, TASKS[task] if task else None)


def predictions(path: Path, task: str, limit: float = 0.0) -> tuple[list[Item], Rejects]:
    rejects = Rejects(limit)
    return read_predictions(path, TASKS[task], rejects, ()), rejects


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"question": "?", "choices": ["a", "b"], "answer": 0}, "choice"),
        ({"question": "?", "answer": "Yes"}, "yes-no"),
        ({"question": "?", "answer": "red"}, "exact"),
        ({"question": "?", "answers": ["red"]}, "vqa"),
        ({"image": "a.png", "references": ["red"]}, "caption"),
        ({"question": "?", "box": [0, 0, 1, 1]}, "grounding"),
        ({"image": "a.png", "caption": "red"}, "retrieval"),
        ({"text": "red"}, "perplexity"),
        ({"question": "?", "answer": "Yes", "task": "gqa"}, "gqa"),
    ],
)
def test_task_follows_from_the_columns(tmp_path: Path, row: dict[str, Any], task: str) -> None:
    (source,) = find(write(tmp_path / "some.name.jsonl", [row]))
    assert (source.name, source.task.name) == ("some.name", task)


def test_columns_are_those_of_all_rows(tmp_path: Path) -> None:
    """A table whose first row has no image is one with images all the same."""
    rows = [{"question": "?", "answer": "red"}, {"question": "?", "answer": "red", "image": "1.png"}]
    (source,) = find(write(tmp_path / "b.jsonl", rows))
    assert (source.visual, source.columns, source.rows) == (True, ("question", "answer", "image"), 2)


def test_columns_that_fit_nothing_are_named(tmp_path: Path) -> None:
    file = write(tmp_path / "b.jsonl", [{"query": "?", "target": "a"}])
    with pytest.raises(InputError, match=r"query, target fit no task type"):
        find(file)
    with pytest.raises(
        InputError, match=r"needs question, choices, answer; missing: question, choices, answer"
    ):
        find(file, "choice")
    write(file, [{"task": "vqa", "question": "?", "answers": ["a"]}, {"task": "gqa"}])
    with pytest.raises(InputError, match="several task types: vqa, gqa"):
        find(file)


def test_folders_hold_one_benchmark_per_file_and_shards_are_joined(tmp_path: Path) -> None:
    row = {"question": "?", "answer": "red"}
    for name in ("b.jsonl", "a.jsonl", "c-00000-of-00002.jsonl", "c-00001-of-00002.jsonl"):
        write(tmp_path / name, [row])
    found = find(tmp_path)
    assert [(source.name, len(source.files)) for source in found] == [("a", 1), ("b", 1), ("c", 2)]
    inputs = {f"benchmarks.{n}": resolve(str(tmp_path / "a.jsonl"), f"benchmarks.{n}", ()) for n in (0, 1)}
    with pytest.raises(InputError, match="two benchmarks are called 'a'"):
        find_benchmarks(inputs, None)


GOOD: dict[str, dict[str, Any]] = {
    "choice": {"choices": ["a", "b"], "answer": 1},
    "yes-no": {"answer": "no"},
    "vqa": {"answers": ["a"]},
    "gqa": {"answer": "a"},
    "caption": {"references": ["a"]},
    "grounding": {"box": [0, 0, 0.5, 1]},
}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("choice", {"answer": 2}, "index from 0 to 1, a letter from A to B or the text of one option, got 2"),
        ("choice", {"answer": "C"}, "got 'C'"),
        ("choice", {"answer": True}, "got True"),
        ("choice", {"answer": 0.5}, r"got 0\.5"),
        ("choice", {"choices": ["a"]}, "2 to 26 options, got 1"),
        ("choice", {"choices": ["a", " "]}, "is empty"),
        ("choice", {"choices": "ab"}, "list of texts, got str"),
        ("yes-no", {"answer": "maybe"}, "yes or no"),
        ("vqa", {"answers": []}, "empty list"),
        ("choice", {"answer": float("inf")}, "got inf"),
        ("choice", {"answer": float("nan")}, "got nan"),
        ("choice", {"answer": 10**400}, "got 1000"),
        ("grounding", {"box": [0, 0, 10**400, 1]}, "finite numbers"),
        ("vqa", {"answers": [True]}, "must be text, got bool True"),
        ("vqa", {"answers": [float("nan")]}, "must be text, got float nan"),
        ("gqa", {"answer": False}, "must be text"),
        ("gqa", {"answer": {"a": 1}}, "must be text"),
        ("gqa", {"answer": None}, "'answer' is null"),
        ("caption", {"references": None}, "'references' is null"),
        ("grounding", {"box": [0, 0, 1]}, "list of 4 numbers"),
        ("grounding", {"box": [0, 0, 10, 10]}, "normalised"),
        ("grounding", {"box": [0.5, 0, 0.5, 1]}, "x1 < x2"),
        ("grounding", {"image_size": [0, 4]}, "width and height in pixels"),
        ("grounding", {"image_size": 4}, "list of 2 numbers"),
        ("gqa", {"prediction": 7}, "'prediction' must be text, got int 7"),
        ("gqa", {"prediction": None}, "'prediction' is null"),
        ("gqa", {"prediction": "\ud800"}, "lone surrogate"),
        ("gqa", {"id": 1.5}, "'id' must be text or a whole number"),
    ],
)
def test_a_broken_prediction_names_line_and_reason(
    tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    good = {"id": 0, "prediction": "a", **GOOD[task]}
    file = write(tmp_path / "p.jsonl", [good, {**good, "id": 1, **change}])
    with pytest.raises(InputError, match=rf"p\.jsonl:2: .*{message}"):
        predictions(file, task)
    items, rejects = predictions(file, task, limit=0.5)
    assert [item.id for item in items] == [0]
    assert len(rejects) == 1


@pytest.mark.parametrize(
    ("task", "truth", "prediction"),
    [
        ("exact", {"answer": 12.5}, "12.5"),
        ("relaxed", {"answer": 12.5}, "12.4"),
        ("mixed", {"answer": 7}, "it is 7"),
        ("vqa", {"answers": [3] * 10}, "3"),
        ("choice", {"choices": [1, 2, 3], "answer": 1}, "2"),
        ("choice", {"choices": [0.5, 2.5], "answer": "B"}, "2.5"),
    ],
)
def test_numbers_as_truth_are_compared_by_their_digits(
    tmp_path: Path, task: str, truth: dict[str, Any], prediction: str
) -> None:
    file = write(tmp_path / "p.jsonl", [{"id": 0, "prediction": prediction, **truth}])
    items, _ = predictions(file, task)
    assert TASKS[task].score(items, [ModelAnswer(prediction)], ScoringOptions()).scores == [1.0]


def test_missing_keys_repeats_and_damage_are_named(tmp_path: Path) -> None:
    good = {"id": "x", "prediction": "a", "answer": "a"}
    with pytest.raises(InputError, match=r"'prediction' is missing.*did you mean 'predicton'"):
        predictions(write(tmp_path / "a.jsonl", [{"id": 0, "predicton": "a", "answer": "a"}]), "gqa")
    with pytest.raises(InputError, match=r"b\.jsonl:3: the id 'x' was in row 1 already"):
        predictions(write(tmp_path / "b.jsonl", [good, {**good, "id": "y"}, good]), "gqa")
    (tmp_path / "c.jsonl").write_text(json.dumps(good) + "\n{broken\n[1]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"2 of 3 rows are broken.*c\.jsonl:2: not valid JSON"):
        predictions(tmp_path / "c.jsonl", "gqa")
    (tmp_path / "d.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="the file is empty"):
        predictions(tmp_path / "d.jsonl", "gqa")


def test_images_that_do_not_decode_are_rejected_unless_withheld(tmp_path: Path, images: list[Any]) -> None:
    (tmp_path / "good.png").write_bytes(images[0].content)
    (tmp_path / "bad.png").write_bytes(images[0].content[:60])
    names = ["good.png", "bad.png", "../outside.png", "none.png", "good.png"]
    rows = [{"question": "?", "answer": "a", "image": name, "ability": "x"} for name in names]
    (source,) = find(write(tmp_path / "b.jsonl", rows))
    rejects = Rejects(0.9)
    items = read_items(source, rejects, group_by=(), limit=0, show_images=True)
    assert [item.id for item in items] == [0, 4]
    assert [row["row"] for row in rejects.rows] == [2, 3, 4]
    assert items[0].groups == {"ability": "x"}
    shared = Rejects(0.9)
    assert read_items(source, shared, group_by=(), limit=0, show_images=True, workers=2) == items
    assert shared.rows == rejects.rows
    blind = read_items(source, Rejects(0.0), group_by=(), limit=2, show_images=False)
    assert [(item.id, item.image) for item in blind] == [(0, None), (1, None)]


def test_boxes_know_the_size_of_their_upright_image(tmp_path: Path) -> None:
    """A rotated photo is shown upright, and its size is that of the upright image also where it is withheld."""
    lying = Image.Exif()
    lying[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=lying)
    rows = [{"question": "?", "image": "a.jpg", "box": [0, 0, 0.5, 1]}]
    (source,) = find(write(tmp_path / "b.jsonl", rows))
    for show_images in (True, False):
        (item,) = read_items(source, Rejects(0.0), group_by=(), limit=0, show_images=show_images)
        assert item.image_size == (20, 30)
    assert decode(ImageRef("a", tmp_path / "a.jpg")).size == (20, 30)


def test_letters_and_indices_are_one_answer(tmp_path: Path) -> None:
    answers: list[Any] = ["B", "b", 1, 1.0]
    rows = [{"question": "?", "choices": ["x", "y"], "answer": answer} for answer in answers]
    (source,) = find(write(tmp_path / "b.jsonl", rows))
    items = read_items(source, Rejects(0.0), group_by=(), limit=0, show_images=False)
    assert [item.answer for item in items] == [1, 1, 1, 1]
