"""Tuning that is killed and run again ends with the bytes of a run that was not, images and views included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from priorkit.core import artifact
from tests.support.killed_runs import Runs

STEPS = 6

ARMS: dict[str, tuple[object, ...]] = {
    "encoder": ("--train", "projector,llm,encoder", "--encoder-learning-rate", "1e-4"),
    "lora": ("--lora-rank", 2, "--lora-dropout", 0.1),
    "lion": (
        "--architecture", "lion", "--stage", "all", "--augment-flip", "--adapter-width", 8, "--queries", 3,
        "--qformer-width", 16, "--qformer-heads", 2, "--qformer-layers", 1, "--aggregator-heads", 2,
    ),
}  # fmt: skip
WEIGHTS = {"encoder": "model", "lora": "adapter_model", "lion": "adapter_model"}


@pytest.fixture(scope="module", params=sorted(ARMS))
def arm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def runs(artifacts: Any, cli: Any, arm: str) -> Runs:
    command = [
        "tune", artifacts.mllm, artifacts.instructions, *ARMS[arm], "--steps", STEPS, "--batch-size", 4, "--micro-batch-size", 2,
        "--warmup-steps", 1, "--checkpoint-every", 2, "--precision", "fp32", "--device", "cpu", "--quiet",
    ]  # fmt: skip
    return Runs(cli, command)


@pytest.fixture(scope="module")
def expected(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    return runs.whole(tmp_path_factory.mktemp("whole") / "tuned")


def test_a_killed_run_ends_with_the_same_bytes(
    runs: Runs, expected: artifact.Artifact, arm: str, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    runs.killed(out, "a step", 3, written=True)
    state = tmp_path / "tuned.partial" / "state"
    assert [path.name for path in state.glob("step-*[0-9]")] == ["step-00000002"]
    runs.killed(out, "saving the state", 3)
    assert [path.name for path in state.glob("step-*[0-9]")] == ["step-00000004"]
    found = runs.whole(out)
    for name in ("metrics.jsonl", f"{WEIGHTS[arm]}.safetensors"):
        assert (found.path / name).read_bytes() == (expected.path / name).read_bytes(), name
    assert found.digest == expected.digest
    losses = (found.path / "metrics.jsonl").read_text().splitlines()
    assert len(losses) == STEPS
