"""A training run that is killed anywhere, and run again, ends with the bytes of one that was not."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from priorkit.core import artifact
from priorkit.training.engine import checkpoint, training_run
from tests.support.killed_runs import Killer, Runs

STEPS = 12


@pytest.fixture(scope="module")
def runs(artifacts, cli) -> Runs:
    command = [
        "pretrain", artifacts.corpus, "--preset", "pocket-tiny", "--steps", STEPS, "--batch-size", 4,
        "--checkpoint-every", 3, "--precision", "fp32", "--device", "cpu", "--quiet",
    ]  # fmt: skip
    return Runs(cli, command)


@pytest.fixture(scope="module")
def expected(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> artifact.Artifact:
    return runs.whole(tmp_path_factory.mktemp("whole") / "llm")


def assert_same(found: artifact.Artifact, expected: artifact.Artifact) -> None:
    for name in ("metrics.jsonl", "model.safetensors"):
        assert (found.path / name).read_bytes() == (expected.path / name).read_bytes(), name
    assert found.digest == expected.digest
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["llm"]


POINTS = random.Random(20)


@pytest.mark.parametrize(
    ("place", "times"),
    [
        ("a step", POINTS.randrange(4, STEPS)),
        ("saving the state", 3),
        ("moving the state into place", 2),
        *(("a write to the disk", POINTS.randrange(1, 30)) for _ in range(3)),
        ("hashing the result", 0),
        ("moving a file or folder", 6),
    ],
)
def test_a_run_killed_anywhere_ends_with_the_same_bytes(
    runs: Runs, expected: artifact.Artifact, tmp_path: Path, place: str, times: int
) -> None:
    runs.killed(tmp_path / "llm", place, times)
    assert_same(runs.whole(tmp_path / "llm"), expected)


def test_a_run_killed_twice_ends_with_the_same_bytes(
    runs: Runs, expected: artifact.Artifact, tmp_path: Path
) -> None:
    runs.killed(tmp_path / "llm", "a step", 5, written=True)
    state = tmp_path / "llm.partial" / "state"
    assert [path.name for path in sorted(state.glob("step-*"))] == ["step-00000003"]
    runs.killed(tmp_path / "llm", "saving the state", 3)
    runs.killed(tmp_path / "llm", "truncating the metrics", 0)
    assert_same(runs.whole(tmp_path / "llm"), expected)


@pytest.mark.parametrize("place", ["removing the state", "renaming the artifact"])
def test_a_finished_artifact_only_needs_the_final_rename(
    runs: Runs, expected: artifact.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Killed after its manifest was written, the artifact is not made again."""
    runs.killed(tmp_path / "llm", place, 0)
    monkeypatch.setattr(training_run, "forward_backward", Killer(training_run.forward_backward, 0))
    assert_same(runs.whole(tmp_path / "llm"), expected)


def test_training_is_not_repeated_where_only_the_hashing_was_killed(runs: Runs, tmp_path: Path) -> None:
    runs.killed(tmp_path / "llm", "hashing the result", 0)
    state = tmp_path / "llm.partial" / "state"
    assert [path.name for path in state.glob("step-*")] == [f"step-{STEPS:08d}"]
    runs.killed(tmp_path / "llm", "hashing the result", 0)
    runs.whole(tmp_path / "llm")


def test_a_full_disk_keeps_the_last_good_state(
    runs: Runs, expected: artifact.Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third file of the second state does not fit; the same command resumes from the first state."""
    written: list[Path] = []

    def write(tensors: Any, path: Path) -> None:
        written.append(path)
        if len(written) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", write)
        found = runs.run(tmp_path / "llm")
    assert found.code == 4
    assert "the disk is full" in found.err
    state = tmp_path / "llm.partial" / "state"
    assert [path.name for path in state.glob("step-*[0-9]")] == ["step-00000003"]
    assert_same(runs.whole(tmp_path / "llm"), expected)
