"""Thresholds against brute force, noise by its shares, and the step from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.process.threads import streamed_in_threads
from priorkit.scoring.answers.tagging import (
    best_threshold,
    calibrate_thresholds,
    corrupt_tags,
    precision_recall,
    precision_recall_curve,
)
from tests.support.lion_models import png


def f1(scores: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    chosen = scores >= threshold
    return 2 * (chosen & truth).sum() / (chosen.sum() + truth.sum())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=20))
def test_the_best_threshold_has_the_best_f1(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in rows])
    truth = np.array([right for _, right in rows])
    truth[0] = True
    threshold, value = best_threshold(scores, truth)
    assert value == pytest.approx(f1(scores, truth, threshold))
    assert value == pytest.approx(max(f1(scores, truth, own) for own in scores))


def test_each_tag_has_a_threshold_and_unseen_tags_share_one() -> None:
    scores = np.array([[0.9, 0.30, 0.1], [0.8, 0.10, 0.2], [0.2, 0.35, 0.9], [0.1, 0.05, 0.3]])
    truth = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    found = calibrate_thresholds(scores, truth)
    assert found[0] == pytest.approx(0.5)
    assert found[1] == pytest.approx(0.2)
    assert found[2] == best_threshold(scores.ravel(), truth.ravel())[0]
    assert precision_recall(scores[:, :2] >= found[:2], truth[:, :2]) == (1.0, 1.0)
    curve = precision_recall_curve(scores, truth)
    assert curve.recall[0] == 1.0
    assert np.all(np.diff(curve.recall) <= 0)
    assert precision_recall(np.zeros((1, 2), bool), np.zeros((1, 2), bool)) == (1.0, 1.0)


def test_noise_is_seeded_by_row_and_has_the_given_rates() -> None:
    vocabulary = [f"tag {number}" for number in range(50)]
    tags = vocabulary[:4]
    assert corrupt_tags(tags, vocabulary, 0, 0, "s") == tags
    assert corrupt_tags(tags, vocabulary, 1, 0, "s") == []
    replaced = corrupt_tags(tags, vocabulary, 0, 1, "s")
    assert not set(replaced) & set(tags)
    rows = [corrupt_tags(tags, vocabulary, 0.3, 0.5, f"7/{row}") for row in range(2000)]
    assert rows[5] == corrupt_tags(tags, vocabulary, 0.3, 0.5, "7/5")
    kept = sum(len(set(row) & set(tags)) for row in rows) / 8000
    assert kept == pytest.approx(0.7 * 0.5, abs=0.03)
    assert corrupt_tags(["犬", "a, b"], ["犬", "a, b"], 0, 1, "s") == ["犬", "a, b"]


def test_an_encoder_tags_by_calibrated_thresholds(artifacts, cli, tmp_path: Path) -> None:
    out = tmp_path / "tagged"
    done = cli(
        "tag-images", artifacts.instructions, artifacts.encoder, "--vocabulary", artifacts.world / "names.txt",
        "--labelled", artifacts.instructions, "--most", 3, "--device", "cpu", "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    before, after = pq.read_table(artifacts.instructions), pq.read_table(out / "train.parquet")
    assert after.column_names == before.column_names
    assert after["conversations"].to_pylist() == before["conversations"].to_pylist()
    tags = after["tags"].to_pylist()
    assert all(
        (image_tags is None) == (image is None)
        for image_tags, image in zip(tags, before["image"].to_pylist(), strict=True)
    )
    assert max(len(image_tags) for image_tags in tags if image_tags is not None) <= 3
    thresholds = pq.read_table(out / "calibration" / "thresholds.parquet")
    assert thresholds.num_rows == len((artifacts.world / "names.txt").read_text().splitlines())
    assert (out / "calibration" / "precision_recall.png").stat().st_size > 1000
    metrics = json.loads((out / "priorkit.json").read_text())["metrics"]
    assert 0 <= metrics["precision"] <= 1
    import datasets

    assert datasets.Dataset.from_parquet(str(out / "train.parquet"))[0]["tags"] is not None


def test_noise_on_true_tags_and_a_benchmark(artifacts, cli, tmp_path: Path) -> None:
    benchmark = artifacts.world / "benchmarks" / "grounding.parquet"
    for name in ("a", "b"):
        done = cli(
            "tag-images", benchmark, "--drop", 0.5, "--corrupt", 0.3, "--vocabulary", artifacts.world / "names.txt",
            "--out", tmp_path / name,
        )  # fmt: skip
        assert done.code == 0, done.err
    first, second = ((tmp_path / name / "grounding.parquet").read_bytes() for name in ("a", "b"))
    assert first == second
    assert json.loads((tmp_path / "a" / "priorkit.json").read_text())["kind"] == "benchmark"
    assert pq.read_table(tmp_path / "a/grounding.parquet")["tags"] != pq.read_table(benchmark)["tags"]


def test_a_classifier_and_a_folder_and_json_lines(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=16, num_labels=3, id2label={0: "cat", 1: "dog", 2: "犬 [a]"},
    )  # fmt: skip
    model = tmp_path / "model"
    ViTForImageClassification(config).save_pretrained(model)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(model)
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").write_bytes(png(number))
    done = cli("tag-images", images, model, "--threshold", 0, "--device", "cpu", "--out", tmp_path / "t")
    assert done.code == 0, done.err
    table = pq.read_table(tmp_path / "t" / "images.parquet")
    assert [sorted(image_tags) for image_tags in table["tags"].to_pylist()] == [["cat", "dog", "犬 [a]"]] * 3
    asked: list[int] = []

    def counted(work, items, threads: int, ahead: int):
        asked.append(threads)
        return streamed_in_threads(work, items, threads, ahead)

    monkeypatch.setattr("priorkit.inference.images.batches.streamed_in_threads", counted)
    shared = ("--threshold", 0, "--device", "cpu", "--workers", 2, "--out", tmp_path / "shared")
    assert cli("tag-images", images, model, *shared).code == 0
    assert asked == [2]
    assert (tmp_path / "shared" / "images.parquet").read_bytes() == (
        tmp_path / "t" / "images.parquet"
    ).read_bytes()
    rows = images / "rows.jsonl"
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A."}]
    rows.write_text("\n".join(json.dumps({"image": f"{n}.png", "conversations": turns}) for n in range(3)))
    done = cli("tag-images", rows, model, "--threshold", 1.1, "--device", "cpu", "--out", tmp_path / "u")
    assert done.code == 0, done.err
    found = pq.read_table(tmp_path / "u" / "rows.parquet").to_pylist()
    assert [row["tags"] for row in found] == [[], [], []]
    assert found[0]["image"]["bytes"] == png(0)
    words = tmp_path / "words.txt"
    words.write_text("cat\nwolf\n")
    done = cli("tag-images", images, model, "--vocabulary", words, "--device", "cpu", "--out", tmp_path / "v")
    assert done.code == 3
    assert "'wolf'" in done.err


def classifier(folder: Path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
        patch_size=16, num_labels=2, id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def turns(question: str = "<image>\nWhat?") -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": "A."}]


def test_rows_whose_image_is_missing_are_left_out_up_to_the_limit(cli, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "broken.png").write_bytes(png(1)[:60])
    names = ["0.png", "gone.png", "broken.png", "../out.png"]
    rows = tmp_path / "rows.jsonl"
    lines = [{"image": name, "tags": ["cat"], "conversations": turns()} for name in names]
    rows.write_text("\n".join(json.dumps(line) for line in ["no row", *lines]))
    model = classifier(tmp_path / "model")
    tagged = ("tag-images", rows, model, "--threshold", 0, "--device", "cpu")
    done = cli(*tagged, "--out", tmp_path / "no")
    assert done.code == 3, done.err
    assert "4 of 5 rows are broken" in done.err
    done = cli(*tagged, "--reject-limit", 0.9, "--out", tmp_path / "a")
    assert done.code == 0, done.err
    found = pq.read_table(tmp_path / "a" / "rows.parquet").to_pylist()
    assert [row["image"]["path"] for row in found] == ["0.png"]
    rejected = [json.loads(line) for line in (tmp_path / "a" / "rejects.jsonl").read_text().splitlines()]
    assert sorted(own["row"] for own in rejected) == [1, 3, 4, 5]
    # Without a tagger images are embedded, not decoded.
    done = cli("tag-images", rows, "--drop", 1, "--reject-limit", 0.9, "--out", tmp_path / "b")
    assert done.code == 0, done.err
    found = pq.read_table(tmp_path / "b" / "rows.parquet").to_pylist()
    assert [(row["image"]["path"], row["tags"]) for row in found] == [("0.png", []), ("broken.png", [])]


def test_columns_of_json_are_those_of_all_rows(cli, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    lines: list[dict[str, object]] = [
        {"id": 7, "conversations": turns("Who?"), "tags": None},
        {"id": "b", "image": "0.png", "tags": ["cat"], "ability": "perception", "conversations": turns()},
    ]
    lines += [{"image": "1.png", "tags": "dog, cat", "conversations": turns()}] * 300
    two = turns("<image><image>\nWhich?")
    lines += [
        {"image": ["0.png", "1.png"], "tags": ["cat"], "task_type": "vqa", "x": 1.5, "conversations": two}
    ]
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([*lines, {"id": 9, "x": 1, "note": {}, "conversations": turns("Who?")}]))
    done = cli("tag-images", rows, "--out", tmp_path / "t")
    assert done.code == 0, done.err
    found = pq.read_table(tmp_path / "t" / "rows.parquet").to_pylist()
    assert [found[place]["id"] for place in (0, 1, 2, -1)] == ["7", "b", None, "9"]
    assert [found[1]["ability"], found[-2]["task_type"]] == ["perception", "vqa"]
    assert (found[-2]["x"], found[-1]["x"], found[-1]["note"]) == (1.5, 1.0, "{}")
    assert [found[0]["image"], len(found[1]["image"]), len(found[-2]["image"])] == [None, 1, 2]
    assert found[2]["tags"] == ["dog", "cat"]
    from priorkit.data.io.rejects import Rejects
    from tests.support.conversations import all_conversations

    read = all_conversations(tmp_path / "t" / "rows.parquet", Rejects(0.0))
    assert [len(sample.images) for sample in (read[0], read[1], read[-2])] == [0, 1, 2]


def test_a_parquet_file_of_paths_embeds_its_images(cli, tmp_path: Path) -> None:
    import datasets
    import pyarrow as pa

    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "0.png").write_bytes(png(0))
    for name, cell in (("pair", {"bytes": None, "path": "0.png"}), ("plain", "0.png"), ("raw", png(0))):
        rows = [{"image": cell, "tags": ["cat"]}, {"image": None, "tags": None}]
        pq.write_table(pa.Table.from_pylist(rows), source / f"{name}.parquet")
    done = cli("tag-images", source, "--out", out)
    assert done.code == 0, done.err
    (source / "0.png").unlink()
    for name in ("pair", "plain", "raw"):
        table = pq.read_table(out / f"{name}.parquet")["image"].to_pylist()
        assert [table[0]["bytes"], table[1]] == [png(0), None]
        assert datasets.Dataset.from_parquet(str(out / f"{name}.parquet")).num_rows == 2


def test_true_tags_are_read_from_the_named_column(cli, tmp_path: Path) -> None:
    import pyarrow as pa

    model = classifier(tmp_path / "model")
    table = [{"image": {"bytes": png(n), "path": None}, "seen": ["cat", "dog"]} for n in range(4)]
    labelled = tmp_path / "labelled.parquet"
    pq.write_table(pa.Table.from_pylist(table), labelled)
    tagged = ("tag-images", labelled, model, "--labelled", labelled, "--device", "cpu")
    done = cli(*tagged, "--out", tmp_path / "no")
    assert done.code == 3
    assert "no column 'tags' with the true tags" in done.err
    done = cli(*tagged, "--tags-column", "seen", "--out", tmp_path / "t")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "t" / "priorkit.json").read_text())["metrics"]["labelled"] == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, "a", None], ["1", "a", None]),
        ([1, 2.5], [1.0, 2.5]),
        ([True, 2], ["true", "2"]),
        ([1 << 70, 1], [str(1 << 70), "1"]),
        ([[1], ["a"], []], [["1"], ["a"], []]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([{"a": 1}, [1]], ['{"a": 1}', "[1]"]),
        ([None, None], [None, None]),
    ],
)
def test_a_column_holds_what_its_rows_hold(values: list[object], expected: list[object]) -> None:
    import pyarrow as pa

    from priorkit.data.io.row_schema import NULL, arrow_type, fitted, joined, shape_of

    shape = NULL
    for value in values:
        shape = joined(shape, shape_of(value))
    made = pa.array([fitted(value, shape) for value in values], type=arrow_type(shape))
    assert made.to_pylist() == expected
    with pytest.raises(ValueError, match="lone surrogate"):
        fitted("\ud800", "text")


def test_what_tag_images_refuses(artifacts, cli, tmp_path: Path) -> None:
    def fails(code: int, words: str, *arguments: object) -> None:
        done = cli("tag-images", *arguments, "--out", tmp_path / "no")
        assert done.code == code, done.err
        assert words in done.err

    fails(
        2,
        "--vocabulary: an encoder needs tags",
        artifacts.instructions,
        artifacts.encoder,
        "--threshold",
        0.2,
    )
    names = artifacts.world / "names.txt"
    fails(2, "no natural threshold", artifacts.instructions, artifacts.encoder, "--vocabulary", names)
    fails(3, "no column 'tag' to keep", artifacts.instructions, "--tags-column", "tag")
    fails(2, "drawn from a vocabulary", artifacts.instructions, "--corrupt", 0.2)
    fails(3, "cannot tag images", artifacts.instructions, _language_model(tmp_path))
    empty = tmp_path / "empty.txt"
    empty.write_text("# nothing\n\n")
    fails(3, "no tag in the vocabulary", artifacts.instructions, artifacts.encoder, "--vocabulary", empty)


def _language_model(folder: Path) -> Path:
    path = folder / "words"
    path.mkdir()
    (path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    return path


def test_thresholds_come_from_a_file(artifacts, cli, tmp_path: Path) -> None:
    names = (artifacts.world / "names.txt").read_text().splitlines()
    vocabulary = tmp_path / "vocabulary.txt"
    vocabulary.write_text("\n".join(names[:4]) + "\n")
    lines = tmp_path / "ram_tag_list_threshold.txt"
    lines.write_text("-1\n2\n-1\n2\n")
    table = tmp_path / "thresholds.csv"
    table.write_text(
        "tag,threshold\n"
        + "".join(f"{name},{number}\n" for name, number in zip(names[:4], (-1, 2, -1, 2), strict=True))
    )
    shared = (
        "tag-images",
        artifacts.captions,
        artifacts.encoder,
        "--vocabulary",
        vocabulary,
        "--device",
        "cpu",
    )
    for number, file in enumerate((lines, table)):
        done = cli(*shared, "--thresholds", file, "--out", tmp_path / str(number))
        assert done.code == 0, done.err
        tags = pq.read_table(tmp_path / str(number) / "train.parquet")["tags"].to_pylist()
        assert {tuple(sorted(row)) for row in tags if row is not None} == {
            tuple(sorted((names[0], names[2])))
        }
    for content, words in (
        ("1\n2\n", "2 thresholds for 4 tags"),
        ("1\nhigh\n2\n3\n", "ram_tag_list_threshold.txt:2: no threshold: high"),
    ):
        lines.write_text(content)
        done = cli(*shared, "--thresholds", lines, "--out", tmp_path / "no")
        assert (done.code, words in done.err) == (3, True), done.err
    table.write_text("tag,threshold\nother,1\n")
    done = cli(*shared, "--thresholds", table, "--out", tmp_path / "no")
    assert (done.code, "4 tags have no threshold" in done.err) == (3, True)
    done = cli(*shared, "--thresholds", table, "--threshold", 0.5, "--out", tmp_path / "no")
    assert done.code == 2
