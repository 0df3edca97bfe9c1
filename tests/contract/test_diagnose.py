"""``priorkit diagnose``: its files, determinism, resuming, and what it refuses in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from priorkit.analysis.diagnosis.measures import MEASURES, VERDICTS
from priorkit.core.artifact import open_artifact

CPU = ("--device", "cpu", "--precision", "fp32", "--resamples", 100)
FIXED = ["entity", "verdict", "probability", "accuracy", "accuracy_low", "accuracy_high"]


@pytest.fixture(scope="module")
def all_evidence(artifacts) -> tuple[object, ...]:
    world = artifacts.world
    return (
        artifacts.mllm, artifacts.images, "--facts", world / "facts.jsonl", "--encoder", artifacts.encoder,
        "--captions", artifacts.world / "captions" / "train.parquet", "--instructions", artifacts.instructions, *CPU,
    )  # fmt: skip


@pytest.fixture(scope="module")
def controls(artifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty of the 36 entities: the model of three steps names hardly any."""
    names = (artifacts.world / "names.txt").read_text().splitlines()
    file = tmp_path_factory.mktemp("controls") / "controls.txt"
    file.write_text("\n".join(names[:30]) + "\n")
    return file


@pytest.fixture(scope="module")
def diagnosis(artifacts, all_evidence, controls, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = cli(
        "diagnose", *all_evidence, "--control", controls, "--truth", artifacts.world / "entities.parquet",
        "--false-discovery-rate", 0.9, "--out", tmp_path_factory.mktemp("diagnosis") / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found.path


def test_a_row_per_entity_with_fixed_names_and_intervals(diagnosis: Path, artifacts) -> None:
    table = pq.read_table(diagnosis / "table.parquet")
    assert table.column_names[: len(FIXED)] == FIXED
    rows = table.to_pylist()
    assert len(rows) == 36
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    for measure in MEASURES:
        assert {measure.name, f"{measure.name}_low", f"{measure.name}_high"} <= set(table.column_names)
    for row in rows:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert (row["probability"] is None) == (row["verdict"] == "not decidable")
        assert row["images"] == 2
    tensors = load_file(diagnosis / "scores.safetensors")
    images = pq.read_table(diagnosis / "images.parquet").to_pydict()
    assert tensors["right"].tolist() == [
        float(a == b) for a, b in zip(images["taken"], images["entity"], strict=True)
    ]
    assert tensors["layers"].shape == (72, len(tensors["layer_numbers"]))


def test_results_have_the_measures_of_all_entities(diagnosis: Path) -> None:
    results = json.loads((diagnosis / "results.json").read_text())
    assert results["entities"] == sum(results["verdicts"].values()) == 36
    assert results["control_entities"] == 30
    assert results["verdicts_by"] == "ordered tests"
    assert results["calibrated"] is False
    assert set(results["neighbor_overlap"]) == {"10", "50"}
    assert set(results["readout_gap"]) == {"encoder", "projector", "layer 1", "layer 2"}
    assert len(results["arbitration"]["margin"]) == 2
    assert results["validation"]["chance"] == 0.2
    assert sum(results["validation"]["counted"].values()) > 0
    assert results["not_measured"] == []
    for name, interval in results["means"].items():
        assert interval["low"] <= interval["value"] <= interval["high"], name


def test_the_names_of_each_cause_are_written_with_commands(
    diagnosis: Path, artifacts, cli, tmp_path: Path
) -> None:
    results = json.loads((diagnosis / "results.json").read_text())
    rows = pq.read_table(diagnosis / "table.parquet").to_pylist()
    assert results["remedies"]
    script = (diagnosis / "remedies" / "commands.sh").read_text()
    for part, remedy in results["remedies"].items():
        names = (diagnosis / remedy["names"]).read_text().splitlines()
        assert names == [row["entity"] for row in rows if row["verdict"] == part]
        assert len(names) == remedy["entities"]
        assert all(command in script for command in remedy["commands"])
    part = next(iter(results["remedies"]))
    chosen = cli(
        "rank-e", artifacts.encoder, artifacts.images, "--only-entities", diagnosis / "remedies" / f"{part}.txt",
        "--device", "cpu", "--out", tmp_path / "ranks",
    )  # fmt: skip
    assert chosen.code == 0, chosen.err
    ranked = pq.read_table(tmp_path / "ranks" / "table.parquet")["entity"].to_pylist()
    assert ranked == (diagnosis / "remedies" / f"{part}.txt").read_text().splitlines()


def test_the_same_bytes_again_after_a_kill_too(all_evidence, cli, tmp_path: Path, monkeypatch) -> None:
    from priorkit.inference.diagnosis import naming

    command = ("diagnose", *all_evidence, "--out")
    assert cli(*command, tmp_path / "one").code == 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(naming, "_presence", stop)
        assert cli(*command, tmp_path / "two").code == 130
    assert cli(*command, tmp_path / "two").code == 0
    first, second = open_artifact(tmp_path / "one"), open_artifact(tmp_path / "two")
    assert first.digest == second.digest
    again = cli(*command, tmp_path / "one")
    assert (again.code, "up to date" in again.err) == (0, True)


def test_too_few_controls_are_said_and_nothing_is_guessed(artifacts, cli, tmp_path: Path) -> None:
    found = cli("diagnose", artifacts.mllm, artifacts.images, *CPU, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    assert "are needed to find a part weak" in found.err
    verdicts = set(pq.read_table(tmp_path / "out" / "table.parquet")["verdict"].to_pylist())
    assert verdicts <= {"none", "not decidable"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"rank_e", "fact_margin", "captions", "instructions"} <= set(results["not_measured"])
    assert results["knowledge_gap"] is None


def test_all_that_is_wrong_is_said_at_once(artifacts, cli, tmp_path: Path) -> None:
    (tmp_path / "control.txt").write_text("no such symbol\n")
    (tmp_path / "facts.jsonl").write_text(
        '{"entity": "dodo", "question": "The {}?", "true": "a", "false": ["b"]}\n'
    )
    (tmp_path / "model.json").write_text("{}")
    found = cli(
        "diagnose", artifacts.llm, artifacts.images, "--control", tmp_path / "control.txt",
        "--facts", tmp_path / "facts.jsonl", "--verdict-model", tmp_path / "model.json",
        "--truth", artifacts.world / "names.txt", "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 3
    assert found.out == ""
    for words in (
        "expected a multimodal model, got a language model: it sees no images",
        "'no such symbol' is no entity of the images",
        "no fact is about an entity of the images; they are about others, such as 'dodo'",
        "not a verdict model",
    ):
        assert words in found.err
    assert not (tmp_path / "out").exists()


def test_the_model_that_ships_gives_verdicts_and_needs_its_evidence(artifacts, cli, tmp_path: Path) -> None:
    world = artifacts.world
    command = ["diagnose", artifacts.mllm, artifacts.images, *CPU, "--verdict-model", "glyph-worlds"]
    refused = cli(*command, "--out", tmp_path / "refused")
    assert refused.code == 3
    for flag in ("--encoder", "--facts", "--captions", "--instructions"):
        assert f"{flag} gives" in refused.err
    found = cli(
        *command, "--encoder", artifacts.encoder, "--facts", world / "facts.jsonl",
        "--captions", world / "captions" / "train.parquet",
        "--instructions", world / "instructions" / "train.parquet", "--out", tmp_path / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["calibrated"] is True
    assert results["verdict_model"]["across_worlds"]["balanced_accuracy"]["low"] > 0.85
    table = pq.read_table(tmp_path / "out" / "table.parquet").to_pydict()
    for part in ("encoder", "language", "projector", "tuning"):
        faults = table[f"{part}_fault"]
        assert all(0 <= fault <= 1 for fault in faults)
        assert [part in parts.split(", ") for parts in table["weak_parts"]] == [
            fault >= 0.5 for fault in faults
        ]
    undecided = [
        parts
        for verdict, parts in zip(table["verdict"], table["weak_parts"], strict=True)
        if verdict == "not decidable"
    ]
    several = sum("," in parts for parts in undecided)
    assert results["several_weak_parts"] == several
    assert cli("report", tmp_path / "out", "--resamples", 100, "--out", tmp_path / "page").code == 0
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert (f", {several} of them as several parts look weak." in page) == (several > 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--distractors", 1), "guessing among 2 names is right in 0.50"),
        (("--template", "a photo"), "--template: needs {}"),
        (("--presence-question", "Is it?", "--question", " "), "--question: is blank"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words: str, artifacts, cli, tmp_path: Path) -> None:
    found = cli("diagnose", artifacts.mllm, artifacts.images, *options, "--out", tmp_path / "out")
    assert (found.code, words in found.err) == (2, True), found.err


def test_an_encoder_without_a_text_tower_leaves_the_probe(artifacts, cli, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessorFast, ViTModel

    vit = tmp_path / "vit"
    ViTModel(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    ).save_pretrained(vit)
    ViTImageProcessorFast(size={"height": 32, "width": 32}).save_pretrained(vit)
    found = cli(
        "diagnose", artifacts.mllm, artifacts.images, "--encoder", vit, *CPU, "--out", tmp_path / "out"
    )
    assert found.code == 0, found.err
    assert "has no text tower; the encoder is judged only by the probe" in found.err
    assert "rank_e" in json.loads((tmp_path / "out" / "results.json").read_text())["not_measured"]


def test_single_images_have_no_probe_and_a_single_entity_is_refused(artifacts, cli, tmp_path: Path) -> None:
    for number, folder in enumerate(sorted(artifacts.images.iterdir())[:4]):
        for root in ("several", "one") if number == 0 else ("several",):
            (tmp_path / root / folder.name).mkdir(parents=True)
            shutil.copy(sorted(folder.iterdir())[0], tmp_path / root / folder.name / "a.png")
    found = cli("diagnose", artifacts.mllm, tmp_path / "several", *CPU, "--out", tmp_path / "out")
    assert found.code == 0, found.err
    assert "every entity has a single image" in found.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {"encoder_separability", "projector_change", "readout_change"} <= set(results["not_measured"])
    found = cli("diagnose", artifacts.mllm, tmp_path / "one", *CPU, "--out", tmp_path / "none")
    assert (found.code, "its name can be compared with no other" in found.err) == (3, True)


def test_an_encoder_is_no_multimodal_model(artifacts, cli, tmp_path: Path) -> None:
    found = cli("diagnose", artifacts.encoder, artifacts.images, "--check", "--out", tmp_path / "out")
    assert (found.code, "got an encoder: it writes no answers" in found.err) == (3, True)


def test_the_report_shows_map_worst_entities_and_what_to_run(diagnosis: Path, cli, tmp_path: Path) -> None:
    found = cli("report", diagnosis, "--resamples", 100, "--out", tmp_path / "page")
    assert found.code == 0, found.err
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "What holds the model back" in page
    assert "entity-map" in page
    results = json.loads((diagnosis / "results.json").read_text())
    assert "No measurement is among the artifacts" not in page
    counts = results["verdicts"]
    most = max(("encoder", "projector", "language", "tuning"), key=lambda part: counts[part])
    assert f"Parts at fault (ordered tests), in number of entities: {most} {counts[most]}" in page
    assert f"for {counts['none']} there is none." in page
    tables = {file.stem for file in (tmp_path / "page" / "tables").glob("*.csv")}
    assert {"verdicts", "diagnosis-measures", "diagnosed-worst", "remedies"} <= tables
    worst = (tmp_path / "page" / "tables" / "diagnosed-worst.csv").read_text().splitlines()
    causes = sum(results["verdicts"][part] for part in ("encoder", "projector", "language", "tuning"))
    assert len(worst) - 1 == min(8, causes) > 0
    assert "data:image/png" in page
