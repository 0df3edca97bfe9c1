"""The full pipeline on a CUDA device, if there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

SHORT = ("--steps", 3, "--batch-size", 8, "--warmup-steps", 1, "--device", "cuda")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_training_step_runs(artifacts, cli, tmp_path: Path, precision: str, workers: int) -> None:
    commands = (
        ("pretrain", artifacts.corpus, "--preset", "pocket-tiny"),
        ("pretrain-encoder", artifacts.pairs, "--preset", "pocket-tiny", "--vocab-size", 400),
        ("distill-encoder", artifacts.encoder, artifacts.images, "--replay", artifacts.pairs),
        ("align", artifacts.llm, artifacts.encoder, artifacts.captions),
        ("tune", artifacts.mllm, artifacts.instructions),
        ("tune", artifacts.mllm, artifacts.instructions, "--train", "projector,llm,encoder"),
        ("tune", artifacts.mllm, artifacts.instructions, "--lora-rank", 4),
        ("blind-tune", artifacts.llm, artifacts.instructions),
    )
    for number, words in enumerate(commands):
        found = cli(
            *words, *SHORT, "--precision", precision, "--workers", workers, "--out", tmp_path / str(number)
        )  # fmt: skip
        assert found.code == 0, found.err
        assert all(0 < loss < 50 for loss in losses(found.path))


def test_the_losses_are_those_of_the_cpu(artifacts, cli, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        words = (
            "pretrain",
            artifacts.corpus,
            "--preset",
            "pocket-tiny",
            *SHORT[:-1],
            device,
            "--precision",
            "fp32",
        )
        found = cli(*words, "--out", tmp_path / device)
        assert found.code == 0, found.err
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_ranks_are_those_of_the_cpu(artifacts, cli, tmp_path: Path) -> None:
    found = cli(
        "rank-e", artifacts.encoder, artifacts.images, "--device", "cuda", "--out", tmp_path / "ranks"
    )
    assert found.code == 0, found.err
    manifests = [json.loads((path / "priorkit.json").read_text()) for path in (found.path, artifacts.scores)]
    values = [manifest["metrics"]["mean_rank"]["value"] for manifest in manifests]
    assert values[0] == pytest.approx(values[1], rel=0.02)
