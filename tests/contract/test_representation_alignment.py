"""``priorkit representation-alignment``: its figures by plain transformers, its options and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPModel

from priorkit.core.artifact import open_artifact
from priorkit.steps.representation_alignment import TENSORS

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = ("--device", "cpu", "--resamples", 100)
K = 4


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty golden images with texts that differ, and one that cannot be read."""
    root = tmp_path_factory.mktemp("pairs")
    rows = []
    for number, path in enumerate(sorted((GOLDEN / "tiny-clip" / "images").glob("*.png"))):
        (root / path.name).write_bytes(path.read_bytes())
        text = f"{path.stem.replace('_', ' ')} number {number}" + " again" * (number % 4)
        rows.append({"image": path.name, "text": text})
    (root / "broken.png").write_bytes(b"x")
    lines = [json.dumps(row) + "\n" for row in (*rows, {"image": "broken.png", "text": "x"})]
    (root / "pairs.jsonl").write_text("".join(lines))
    return root / "pairs.jsonl"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def aligned(pairs: Path, resnet: Path, cli, tmp_path_factory: pytest.TempPathFactory):
    found = cli(
        "representation-alignment", GOLDEN / "tiny-llama", pairs, GOLDEN / "tiny-clip", resnet,
        "--neighbours", K, "--reject-limit", 0.1, "--clamp", 1, *CPU,
        "--out", tmp_path_factory.mktemp("aligned") / "out",
    )  # fmt: skip
    assert found.code == 0, found.err
    return found


def texts_of(pairs: Path) -> tuple[list[str], list[Path]]:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()][:-1]
    return [row["text"] for row in rows], [pairs.parent / row["image"] for row in rows]


def neighbours(features: np.ndarray) -> list[set[int]]:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return [set(np.argsort(-row)[:K].tolist()) for row in cosines]


def test_scores_are_those_of_transformers_hidden_states(aligned, pairs: Path) -> None:
    texts, paths = texts_of(pairs)
    tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "tiny-llama")
    llm = AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny-llama").eval()
    clip = CLIPModel.from_pretrained(GOLDEN / "tiny-clip").eval()
    processor = transformers.AutoImageProcessor.from_pretrained(GOLDEN / "tiny-clip")
    with torch.no_grad():
        states = [
            llm(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            for text in texts
        ]
        seen = clip.vision_model(
            **processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt"),
            output_hidden_states=True,
        ).hidden_states
    of_texts = [
        neighbours(torch.stack([state[layer][0].mean(0) for state in states]).double().numpy())
        for layer in range(len(states[0]))
    ]
    of_images = [neighbours(state[:, 0].double().numpy()) for state in seen]
    expected = np.array(
        [
            [np.mean([len(a & b) / K for a, b in zip(one, other, strict=True)]) for other in of_images]
            for one in of_texts
        ]
    )
    tensors = load_file(aligned.path / "scores.safetensors")
    # All images have one class token to begin with: at layer 0 all neighbors are equally near.
    assert tensors["mutual_knn.0"][:, 1:] == pytest.approx(expected[:, 1:], abs=0.02)
    rows = pq.read_table(aligned.path / "table.parquet").to_pylist()
    assert rows[0]["mutual_knn"] == tensors["mutual_knn.0"].max()
    first, second = rows[0]["llm_layer"], rows[0]["encoder_layer"]
    assert tensors["mutual_knn.0"][first, second] == rows[0]["mutual_knn"]
    assert tensors["overlap.0"].mean() == pytest.approx(rows[0]["mutual_knn"])
    for row in rows:
        assert row["mutual_knn_low"] < row["mutual_knn_high"]
        assert 1 / 201 <= row["p_value"] <= 1
        assert K / 29 - 0.05 < row["null_mean"] <= row["null_high"]
        for name in ("cka", "cka_unbiased"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert (rows[1]["encoder_layer"], tensors["encoder_layers.1"].tolist()) == (-1, [-1])


def test_the_manifest_describes_the_measurement(aligned) -> None:
    metrics = open_artifact(aligned.path).manifest.metrics
    assert (metrics["pairs"], metrics["rejected"], metrics["neighbours"]) == (30, 1, K)
    assert metrics["chance"] == K / 29
    assert metrics["null_mean"] > metrics["chance"], "the maximum over layers lies above chance"
    assert metrics["null_mean"] <= metrics["null_high"]
    rows = pq.read_table(aligned.path / "table.parquet").to_pylist()
    assert metrics["mutual_knn"]["value"] == pytest.approx(np.mean([row["mutual_knn"] for row in rows]))
    assert set(metrics["tensors"]) == set(TENSORS)
    known = {name.rpartition(".")[0] + ".N" if name[-1].isdigit() else name for name in TENSORS}
    found = load_file(aligned.path / "scores.safetensors")
    assert {name.rpartition(".")[0] + ".N" if name[-1].isdigit() else name for name in found} == known
    assert not list(aligned.path.glob("**/*.f32"))
    assert "its layers differ in width; its pooled feature is taken" in aligned.err


def test_layers_pooling_and_clamp_have_an_effect(aligned, pairs: Path, cli, tmp_path: Path) -> None:
    words = ("representation-alignment", GOLDEN / "tiny-llama", pairs, GOLDEN / "tiny-clip", "--neighbours", K,
             "--reject-limit", 0.1, *CPU)  # fmt: skip
    chosen = cli(
        *words,
        "--clamp",
        1,
        "--llm-layers",
        "-1,1",
        "--encoder-layers",
        2,
        "--no-cka",
        "--out",
        tmp_path / "a",
    )
    assert chosen.code == 0, chosen.err
    tensors = load_file(chosen.path / "scores.safetensors")
    unclamped = load_file(aligned.path / "scores.safetensors")["mutual_knn.0"]
    assert tensors["llm_layers"].tolist() == [len(unclamped) - 1, 1]
    assert tensors["mutual_knn.0"].tolist() == unclamped[[-1, 1]][:, [2]].tolist()
    assert "cka" not in pq.read_schema(chosen.path / "table.parquet").names
    seen = {unclamped.tobytes()}
    for number, extra in enumerate(
        (
            ("--llm-pooling", "last"),
            ("--encoder-pooling", "mean"),
            ("--encoder-pooling", "pooled"),
            ("--clamp", 0.8),
        )
    ):
        found = cli(*words, "--clamp", 1, *extra, "--no-cka", "--out", tmp_path / str(number))
        assert found.code == 0, found.err
        seen.add(load_file(found.path / "scores.safetensors")["mutual_knn.0"].tobytes())
    assert len(seen) == 5


def test_invalid_settings_and_inputs_are_refused(pairs: Path, resnet: Path, cli, tmp_path: Path) -> None:
    def refused(code: int, message: str, *words: object, llm: Path = GOLDEN / "tiny-llama") -> None:
        found = cli("representation-alignment", llm, pairs, *words, *CPU, "--out", tmp_path / "out")
        assert found.code == code, found.err
        assert message in found.err
        assert not (tmp_path / "out").exists()

    clip = GOLDEN / "tiny-clip"
    refused(2, "no hidden state 99; a model of", clip, "--llm-layers", 99)
    refused(2, "expected the number of a layer, got 'x'", clip, "--encoder-layers", "x")
    refused(
        2,
        "has no effect with --encoder-pooling pooled",
        clip,
        "--encoder-layers",
        1,
        "--encoder-pooling",
        "pooled",
    )
    refused(3, "30 pairs are too few for 40 neighbours", clip, "--neighbours", 40, "--reject-limit", 0.1)
    refused(
        3,
        "has no class token",
        resnet,
        "--encoder-pooling",
        "class",
        "--reject-limit",
        0.1,
        "--neighbours",
        K,
    )
    refused(3, "1 of 31 rows are broken", clip)
    refused(3, "expected a language model, got 'clip'", clip, llm=clip)
