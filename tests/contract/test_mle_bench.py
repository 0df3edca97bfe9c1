"""``priorkit mle-bench`` from the command line: COCO instances and panoptic, ADE20K; the table it writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from priorkit.cli.main import run
from priorkit.mle_bench.questions import BINS

SMALL, _, LARGE = BINS

NAMES = ["cat", "dog", "car", "tree", "sky", "sofa", "couch", "boat"]
SIDE = 20


def areas(number: int) -> list[tuple[int, int]]:
    """Category numbers from 1, and how many rows of the image each covers."""
    return [(1 + number % 8, (3, 8, 14)[number % 3]), (1 + (number + 3) % 8, 2)]


def rows_of(number: int) -> list[tuple[int, slice]]:
    """Stripes across the image, one below the other, somewhere in it."""
    free = SIDE - sum(height for _, height in areas(number))
    start, found = number % (free + 1), []
    for category, height in areas(number):
        found.append((category, slice(start, start + height)))
        start += height
    return found


def center_distances(number: int) -> dict[str, float]:
    """Of stripes across the image only the height of their middle matters."""
    return {
        NAMES[category - 1]: abs((rows.start + rows.stop) / 2 - SIDE / 2) / (SIDE / 2**0.5)
        for category, rows in rows_of(number)
    }


def save_images(folder: Path, count: int = 24) -> list[dict[str, Any]]:
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return [{"id": n, "file_name": f"{n:02d}.png", "height": SIDE, "width": SIDE} for n in range(count)]


def categories() -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]


def instances(root: Path) -> Path:
    images = save_images(root / "images")
    annotations: list[dict[str, Any]] = []
    for image in images:
        for turn, (category, rows) in enumerate(rows_of(image["id"])):
            top, bottom = rows.start, rows.stop
            polygon = [[0, top, SIDE, top, SIDE, bottom, 0, bottom]]
            counts = [top] + [bottom - top, SIDE - bottom + top] * (SIDE - 1) + [bottom - top, SIDE - bottom]
            runs = {"counts": counts, "size": [SIDE, SIDE]}
            annotations.append(
                # The area that COCO's file states is not the mask's and must not be used.
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "area": 1,
                    "segmentation": runs if turn else polygon,
                }
            )
    document = {"images": images, "annotations": annotations, "categories": categories()}
    (root / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return root


def panoptic(root: Path) -> Path:
    images = save_images(root / "images")
    (root / "panoptic").mkdir()
    annotations: list[dict[str, Any]] = []
    for image in images:
        colours = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        segments: list[dict[str, int]] = []
        for category, rows in rows_of(image["id"]):
            segment = 70_000 + category
            colours[rows] = (segment % 256, segment // 256 % 256, segment // 65536)
            segments.append({"id": segment, "category_id": category})
        Image.fromarray(colours).save(root / "panoptic" / image["file_name"])
        annotations.append(
            {"image_id": image["id"], "file_name": image["file_name"], "segments_info": segments}
        )
    named = [{**category, "name": category["name"] + "-merged"} for category in categories()]
    document = {"images": images, "annotations": annotations, "categories": named}
    (root / "panoptic.json").write_text(json.dumps(document), encoding="utf-8")
    return root


def ade20k(root: Path) -> Path:
    images = save_images(root / "images")
    (root / "masks").mkdir()
    for image in images:
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        for category, rows in rows_of(image["id"]):
            mask[rows] = category
        Image.fromarray(mask).save(root / "masks" / image["file_name"])
    (root / "names.txt").write_text("".join(f"{name}, thing\n" for name in NAMES), encoding="utf-8")
    return root


def build(root: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    assert run(["mle-bench", str(root), "--out", str(out), "--quiet", *more]) == 0
    return pq.read_table(out / "test.parquet").to_pylist()


def test_three_layouts_give_one_benchmark(tmp_path: Path) -> None:
    found = [
        build(make(tmp_path / make.__name__), tmp_path / f"out-{make.__name__}")
        for make in (instances, panoptic, ade20k)
    ]
    assert found[0] == found[1] == found[2]
    for number, row in enumerate(found[0]):
        names = {NAMES[category - 1]: height / SIDE for category, height in areas(number)}
        assert row["area"] == pytest.approx(names[row["entity"]])
        assert row["center_distance"] == pytest.approx(center_distances(number)[row["entity"]])
        assert row["answer"] == row["entity"]
        assert row["choices"].count(row["answer"]) == 1
        assert set(row["choices"]) & set(names) == {row["entity"]}
    assert Counter(row["sub_task"] for row in found[0]) == dict.fromkeys(BINS, 8)
    for size in BINS:
        places = Counter(row["choices"].index(row["answer"]) for row in found[0] if row["sub_task"] == size)
        assert places == dict.fromkeys(range(4), 2)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (instances, ("--names", "names.txt")),
        (instances, ("--masks", "masks")),
        (panoptic, ("--names", "names.txt")),
        (ade20k, ("--synonym-threshold", "0.9")),
    ],
)
@pytest.mark.parametrize("check", [(), ("--check",)])
def test_options_without_effect_are_refused(
    make: Callable[[Path], Path],
    options: tuple[str, str],
    check: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = make(tmp_path / "data")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "00.png").write_bytes((root / "images" / "00.png").read_bytes())
    (tmp_path / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    flag, value = options
    given = str(tmp_path / value) if (tmp_path / value).exists() else value
    assert run(["mle-bench", str(root), flag, given, "--out", str(tmp_path / "out"), *check]) == 2
    error = capsys.readouterr().err
    assert f"{flag}: has no effect" in error
    assert "leave it out" in error


def test_annotations_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    root = instances(tmp_path / "data")
    expected = build(root, tmp_path / "expected")
    (root / "instances.json").rename(tmp_path / "instances_val.JSON")
    assert build(root, tmp_path / "out", "--annotations", str(tmp_path / "instances_val.JSON")) == expected


def test_masks_among_the_images_folders_are_no_images(tmp_path: Path) -> None:
    """Images directly in the data set's folder, the masks below it."""
    root = ade20k(tmp_path / "ade")
    first = build(root, tmp_path / "first")
    for image in (root / "images").iterdir():
        image.rename(root / image.name)
    (root / "images").rmdir()
    assert build(root, tmp_path / "second") == first


def test_datasets_loads_it_and_evaluate_scores_it(tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "existence"
    rows = build(instances(tmp_path / "coco"), out, "--per-bin", "6", "--seed", "3")
    loaded = load_dataset(str(out), split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (SIDE, SIDE)
    assert loaded.column_names[1:6] == ["image", "question", "choices", "answer", "sub_task"]
    # Every answer on small items is right, every other one wrong; there are more small items than large ones.
    kept = [row for row in rows if row["sub_task"] == SMALL] + [
        row for row in rows if row["sub_task"] == LARGE
    ][:2]
    lines = [
        {
            "id": row["id"],
            "prediction": row["answer"] if row["sub_task"] == SMALL else "I cannot tell.",
            "choices": row["choices"],
            "answer": row["choices"].index(row["answer"]),
            "sub_task": row["sub_task"],
        }
        for row in kept
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    scores = tmp_path / "scores"
    assert (
        run(["evaluate", "--predictions", str(file), "--task", "choice", "--out", str(scores), "--quiet"])
        == 0
    )
    entry = json.loads((scores / "results.json").read_text(encoding="utf-8"))["benchmarks"]["answers"]
    assert entry["metrics"]["accuracy"]["value"] == pytest.approx(6 / 8)
    assert entry["metrics"]["macro_accuracy"]["value"] == pytest.approx(1 / 2)
    assert entry["unparsed"] == 2
    assert entry["groups"]["sub_task"][SMALL]["metrics"]["accuracy"]["value"] == 1.0


CLAIM = """
[claims.S4]
paper = "LSBS"
statement = "Small objects are easier than large ones."
comparison = "At the same distances from the center."

[[claims.S4.measures]]
name = "accuracy on small over large"
kind = "difference"
smallest = 0.1
benchmarks = "existence"
balance = "center_distance"
bins = 2
contrast = [
  { evaluation = "tuned", where = { sub_task = "existence_0-30" } },
  { evaluation = "tuned", where = { sub_task = "existence_60-100" }, weight = -1 },
]
"""


@pytest.mark.parametrize("options", [(), ("--group-by", "center_distance")], ids=["default", "grouped"])
def test_claims_can_be_balanced_in_the_distance_from_the_center(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """Through stored predictions; answers on small objects are right, others mostly wrong."""
    rows = build(instances(tmp_path / "coco"), tmp_path / "bench", "--reject-limit", "1")
    kept = ("id", "choices", "answer", "sub_task", "center_distance")
    given: list[str] = []
    for seed in range(1, 4):
        lines = [
            {**{key: row[key] for key in kept}, "prediction": row["answer"] if right else "I cannot tell."}
            for number, row in enumerate(rows)
            for right in [row["sub_task"] == SMALL or number % 9 == seed]
        ]
        file, out = tmp_path / str(seed) / "existence.jsonl", tmp_path / str(seed) / "scores"
        file.parent.mkdir()
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        command = ["evaluate", "--predictions", str(file), "--task", "choice", "--out", str(out), "--quiet"]
        assert run([*command, *options]) == 0
        samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        assert [sample["groups"]["center_distance"] for sample in samples] == [
            str(row["center_distance"]) for row in rows
        ]
        given.append(f"tuned@{seed}={out}")
    claims, page = tmp_path / "claims.toml", tmp_path / "page"
    claims.write_text(CLAIM, encoding="utf-8")
    assert run(["report", *given, "--claims", str(claims), "--out", str(page), "--quiet"]) == 0
    claim = json.loads((page / "claims.json").read_text())["claims"]["S4"]
    assert claim["verdict"] == "supported"
    assert claim["measures"][0]["value"] > 0.5


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    root = instances(tmp_path / "coco")
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    assert build(root, first) == build(root, again)
    assert (first / "test.parquet").read_bytes() == (again / "test.parquet").read_bytes()
    assert build(root, first) != build(root, other, "--seed", "7")


def test_synonyms_of_what_is_there_are_no_options(tmp_path: Path) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("sofa, couch\n", encoding="utf-8")
    for row in build(instances(tmp_path / "coco"), tmp_path / "out", "--synonyms", str(file)):
        assert not {"sofa", "couch"} <= set(row["choices"])


def test_user_wordings(tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    file.write_text("What do you see?\nDo you see {options}?\n", encoding="utf-8")
    rows = build(instances(tmp_path / "coco"), tmp_path / "out", "--templates", str(file))
    listed = [row for row in rows if row["question"] != "What do you see?"]
    assert len(listed) == len(rows) / 2
    for row in listed:
        a, b, c, d = row["choices"]
        assert row["question"] == f"Do you see {a}, {b}, {c} or {d}?"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from priorkit.models.language.causal_lm import build_config, build_llm, preset_fields
    from tests.support.evaluation_models import build_tokenizer

    folder = tmp_path_factory.mktemp("judge") / "llm"
    fields = {**preset_fields("pocket-tiny"), "initializer_range": 0.3}
    build_llm(build_config(fields, build_tokenizer(folder)), 5).save_pretrained(folder)
    return folder


def test_a_language_model_judges_pairs_and_its_verdicts_are_kept(tmp_path: Path, judge: Path) -> None:
    root, out = instances(tmp_path / "coco"), tmp_path / "out"
    asked = ("--synonym-model", str(judge), "--device", "cpu", "--reject-limit", "1")
    # A model with random weights: the threshold is the upper quartile of its scores.
    build(root, tmp_path / "none", *asked, "--synonym-threshold", "1")
    scores = sorted(verdict["yes"] for verdict in verdicts(tmp_path / "none"))
    middle = scores[3 * len(scores) // 4]
    rows = build(root, out, *asked, "--synonym-threshold", str(middle))
    found = verdicts(out)
    assert {verdict["same"] for verdict in found} == {True, False}
    assert all(verdict["same"] == (verdict["yes"] >= middle) for verdict in found)
    assert [verdict["first"] for verdict in found] == sorted(verdict["first"] for verdict in found)
    same = {(verdict["first"], verdict["second"]): verdict["same"] for verdict in found}
    shown = {f"{n:02d}.png": [NAMES[category - 1] for category, _ in areas(n)] for n in range(24)}
    for row in rows:
        wrong = [name for name in row["choices"] if name != row["answer"]]
        for place, name in enumerate(wrong):
            for other in (*shown[row["id"]], *wrong[:place]):
                assert same[min(name, other), max(name, other)] is False
    manifest = json.loads((out / "priorkit.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["pairs_judged"] == len(found)
    again = tmp_path / "again"
    batched = (*asked, "--batch-size", "3", "--synonym-threshold", str(middle))
    assert build(root, again, *batched) == rows
    # Pairs that the file decides are not judged.
    file = tmp_path / "synonyms.txt"
    file.write_text("sofa, couch\n", encoding="utf-8")
    build(root, tmp_path / "both", *asked, "--synonym-threshold", "1", "--synonyms", str(file))
    assert ("couch", "sofa") not in {(v["first"], v["second"]) for v in verdicts(tmp_path / "both")}


def verdicts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "synonyms.jsonl").read_text(encoding="utf-8").splitlines()]


def test_images_that_leave_too_few_options_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = instances(tmp_path / "coco")
    file = tmp_path / "synonyms.txt"
    # Cat, dog and one of the others: too few of them are absent from any image.
    file.write_text("car, tree, sky, sofa, couch, boat\n", encoding="utf-8")
    command = ["mle-bench", str(root), "--synonyms", str(file), "--out", str(tmp_path / "out")]
    assert run([*command, "--reject-limit", "0.5"]) == 3
    assert "needs 3 wrong options" in capsys.readouterr().err
    file.write_text("car, tree, sky, sofa, couch\n", encoding="utf-8")
    rows = build(root, tmp_path / "some", "--synonyms", str(file), "--reject-limit", "1")
    rejects = (tmp_path / "some" / "rejects.jsonl").read_text(encoding="utf-8").splitlines()
    assert rows
    assert len(rows) + len(rejects) == 24
    reasons = [json.loads(line) for line in rejects]
    for reason in reasons:
        category = NAMES[areas(reason["row"] - 1)[0][0] - 1], NAMES[areas(reason["row"] - 1)[1][0] - 1]
        assert any(f"'{name}' needs 3 wrong options" in reason["reason"] for name in category)
    assert run([*command, "--reject-limit", "0.01"]) == 3
    messages = capsys.readouterr().err
    assert "needs 3 wrong options" in messages
    assert "--reject-limit" in messages


def test_all_bad_options_are_reported_at_once(
    tmp_path: Path, judge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = instances(tmp_path / "coco")
    synonyms, wordings = tmp_path / "synonyms.txt", tmp_path / "wordings.txt"
    synonyms.write_text("sofa\ncouch, COUCH\n", encoding="utf-8")
    wordings.write_text("Is {name} here?\n", encoding="utf-8")
    command = ["mle-bench", str(root), "--out", str(tmp_path / "out"), "--check"]
    assert run([*command, "--synonyms", str(synonyms), "--templates", str(wordings)]) == 3
    messages = capsys.readouterr().err
    for part in ("synonyms.txt:1", "synonyms.txt:2", "'couch' and 'COUCH'", "wordings.txt:1", "{options}"):
        assert part in messages
    assert run([*command, "--synonyms", str(tmp_path / "none.txt")]) == 3
    assert "none.txt" in capsys.readouterr().err
    assert run([*command, "--templates", str(tmp_path / "none.txt")]) == 3
    assert "none.txt" in capsys.readouterr().err
    assert run([*command, "--synonym-model", str(root)]) == 3
    assert "coco" in capsys.readouterr().err
    assert run([*command, "--synonym-threshold", "2"]) == 2
    capsys.readouterr()
    assert run([*command, "--synonym-model", str(judge)]) == 0


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = instances(tmp_path / "coco")
    command = ["mle-bench", str(root), "--out", str(tmp_path / "out")]
    document = json.loads((root / "instances.json").read_text(encoding="utf-8"))

    def fails(change: dict[str, Any]) -> str:
        (root / "instances.json").write_text(json.dumps({**document, **change}), encoding="utf-8")
        assert run(command) == 3
        return capsys.readouterr().err

    outside = [{**document["images"][0], "file_name": "../../secret.png"}, *document["images"][1:]]
    assert "leaves its folder" in fails({"images": outside})
    twice = [document["images"][0], *document["images"]]
    assert "same file_name" in fails({"images": twice})
    assert "no categories" in fails({"categories": []})
    assert "no category 1" in fails({"categories": document["categories"][1:]})
    assert "no annotations in it" in fails({"annotations": []})
    letters = [{**category, "name": "xyzcdefg"[n]} for n, category in enumerate(document["categories"])]
    assert "cannot be distinguished from the letter" in fails({"categories": letters})
    assert "'cat' needs 3 wrong options" in fails(
        {"categories": [{**category, "name": "cat"} for category in document["categories"]]}
    )
    (root / "instances.json").unlink()
    assert run(command) == 3
    assert "--annotations" in capsys.readouterr().err
