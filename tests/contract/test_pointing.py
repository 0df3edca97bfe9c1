"""``evaluate ENCODER BENCHMARK --task pointing``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from priorkit.models.vision.loading import load_encoder
from tests.support.region_pairs import region_rows, write_pairs

CPU = ("--precision", "fp32", "--device", "cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORKIT_CACHE", str(tmp_path / "cache"))


def benchmark(folder: Path, rows: list[dict[str, Any]], name: str = "name") -> Path:
    items = [
        {"id": f"{place}.{number}", "image": row["image"], name: region["text"], "box": region["box"]}
        for place, row in enumerate(rows)
        for number, region in enumerate(row["regions"])
    ]
    pq.write_table(pa.Table.from_pylist(items), folder / "pointing.parquet")
    return folder / "pointing.parquet"


def metrics(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "results.json").read_text())["benchmarks"]["pointing"]["metrics"]
    return {name: metric["value"] for name, metric in found.items()}


def test_hits_and_chance_are_those_of_the_patches(artifacts, cli, tmp_path: Path) -> None:
    rows = region_rows(10, size=(60, 48))
    file = benchmark(tmp_path, rows)
    for layer in (-2, -1):
        out = tmp_path / str(layer)
        found = cli(
            "evaluate", artifacts.encoder, file, "--task", "pointing", "--region-layer", layer, "--batch-size", 3,
            *CPU, "--out", out,
        )  # fmt: skip
        assert found.code == 0, found.err
        samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
        encoder = load_encoder(artifacts.encoder)
        hits, chances = expected(encoder, rows, layer)
        assert [sample["score"] for sample in samples] == hits
        assert [sample["chance"] for sample in samples] == pytest.approx(chances)
        assert metrics(out)["pointing_accuracy"] == pytest.approx(np.mean(hits))
        assert metrics(out)["chance"] == pytest.approx(np.mean(chances))


@torch.no_grad()
def expected(encoder: Any, rows: list[dict[str, Any]], layer: int) -> tuple[list[float], list[float]]:
    """Nine patches of 16 pixels; of 60 columns the middle 48 are seen."""
    import io

    from PIL import Image

    hits, chances = [], []
    for row in rows:
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        values = encoder.image_processor(images=image, return_tensors="pt")["pixel_values"]
        vision = encoder.model.vision_model
        state = vision(pixel_values=values, output_hidden_states=True).hidden_states[layer][0, 1:]
        patches = encoder.model.visual_projection(vision.post_layernorm(state))
        for region in row["regions"]:
            text = encoder.model.get_text_features(**encoder.tokenize([region["text"]])).pooler_output[0]
            best = int(torch.cosine_similarity(patches, text[None]).argmax())
            x1, x2 = ((x * 60 - 6) / 48 for x in region["box"][::2])
            y1, y2 = region["box"][1::2]
            right = []
            if 0 <= (x1 + x2) / 2 < 1:
                for patch in range(9):
                    x, y = (patch % 3 + 0.5) / 3, (patch // 3 + 0.5) / 3
                    if x1 - 1e-9 <= x < x2 - 1e-9 and y1 - 1e-9 <= y < y2 - 1e-9:
                        right.append(patch)
                if not right:
                    column = int(np.clip((max(x1, 0) + min(x2, 1)) / 2 * 3, 0, 2))
                    right = [column + 3 * int((y1 + y2) / 2 * 3)]
            hits.append(float(best in right))
            chances.append(len(right) / 9)
    return hits, chances


def test_what_cannot_point_is_refused(artifacts, cli, tmp_path: Path) -> None:
    file = benchmark(tmp_path, region_rows(4), name="text")
    for model, options, code, words in (
        (
            artifacts.encoder,
            ("--region-layer", 3),
            2,
            ("--region-layer 3", "hidden states are numbered -3 to 2"),
        ),
        (artifacts.mllm, (), 3, ("'pointing' needs an encoder",)),
        (artifacts.llm, (), 3, ("cannot see the images",)),
    ):
        for more in (("--check",), ()):
            found = cli(
                "evaluate", model, file, "--task", "pointing", *options, *more, "--out", tmp_path / "x"
            )
            assert found.code == code, found.err
            assert all(word in found.err for word in words), found.err
    found = cli(
        "evaluate",
        artifacts.encoder,
        file,
        "--task",
        "retrieval",
        "--region-layer",
        1,
        "--out",
        tmp_path / "x",
    )
    assert found.code == 2
    assert "has an effect only on pointing" in found.err


def test_rows_without_name_or_box_are_rejected(artifacts, cli, tmp_path: Path) -> None:
    rows = region_rows(12)
    rows[1]["regions"][0]["box"] = [0.5, 0.5, 0.5, 0.9]
    rows[2]["regions"][0]["text"] = ""
    found = cli(
        "evaluate", artifacts.encoder, benchmark(tmp_path, rows), "--task", "pointing", "--reject-limit", 0.5, *CPU,
        "--out", tmp_path / "x",
    )  # fmt: skip
    assert found.code == 0, found.err
    reasons = [json.loads(line)["reason"] for line in (found.path / "rejects.jsonl").read_text().splitlines()]
    assert len(reasons) == 2
    assert "'box' must be normalised" in reasons[0]
    assert "'name' is empty" in reasons[1]


@pytest.mark.slow
def test_trained_on_regions_patches_point(cli, tmp_path: Path) -> None:
    """The term's effect: four colors, two squares at most."""
    pairs = write_pairs(tmp_path / "pairs.parquet", region_rows(256))
    config = tmp_path / "config.json"
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 48, "patch_size": 8}  # fmt: skip
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
            "max_position_embeddings": 16}  # fmt: skip
    config.write_text(json.dumps({"projection_dim": 32, "vision_config": vision, "text_config": text}))
    file = benchmark(tmp_path, region_rows(60, seed=9))
    found: dict[str, float] = {}
    for name, options in (("without", ()), ("with", ("--region-weight", 1))):
        encoder = cli(
            "pretrain-encoder", pairs, "--config", config, "--vocab-size", 300, "--steps", 120, "--batch-size", 32,
            "--learning-rate", 3e-3, "--warmup-steps", 10, *CPU, *options, "--out", tmp_path / name,
        )  # fmt: skip
        assert encoder.code == 0, encoder.err
        scored = cli(
            "evaluate", encoder.path, file, "--task", "pointing", *CPU, "--out", tmp_path / f"{name}-scores"
        )
        assert scored.code == 0, scored.err
        found[name] = metrics(scored.path)["pointing_accuracy"]
    assert found["without"] < 0.5
    assert found["with"] > 0.7
