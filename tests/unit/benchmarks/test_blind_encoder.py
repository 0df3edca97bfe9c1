"""``benchmarks/blind_encoder.py``: an encoder that sees some entities as a placeholder, and the others as before."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from priorkit.core.process.runtime import start
from priorkit.models.vision.loading import load_encoder
from tests.support.benchmarks import load_benchmark
from tests.support.small_artifacts import SmallArtifacts

IMAGES = 48
TINY = ("--steps", "240", "--images", str(IMAGES), "--batch-size", "16")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    return load_benchmark("blind_encoder")


@pytest.fixture(scope="module")
def blinded(benchmark: Any, artifacts: SmallArtifacts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("blinded") / "encoder"
    assert benchmark.main([str(artifacts.encoder), str(artifacts.world), str(out), *TINY]) == 0
    return out


def test_absent_entities_look_like_the_placeholder_and_others_as_before(
    benchmark: Any, artifacts: SmallArtifacts, blinded: Path
) -> None:
    runtime = start(0, "cpu", "fp32")
    # Those of the training: an encoder this small says nothing about others.
    pairs = benchmark.scenes(benchmark.world_options(artifacts.world), IMAGES, random.Random("blind/42"))
    absent = [pair for pair in pairs if pair[0] is not pair[1]]
    present = [pair for pair in pairs if pair[0] is pair[1]]
    assert absent
    assert present
    assert {pair[0].objects[0].object.entity.prior for pair in absent} == {"none"}
    original, student = load_encoder(artifacts.encoder), load_encoder(blinded)

    def distance(encoder: Any, chosen: list[Any]) -> float:
        shown, seen = (benchmark.prepared(original, [pair[side] for pair in chosen]) for side in (0, 1))
        with torch.no_grad():
            difference = benchmark.tokens(encoder, shown, runtime) - benchmark.tokens(original, seen, runtime)
        return difference.square().mean().item()

    assert distance(student, absent) < 0.7 * distance(original, absent)
    assert distance(original, present) == 0
    assert distance(student, present) < distance(original, absent)


def test_it_is_made_once_and_from_the_same_bytes_again(
    benchmark: Any,
    artifacts: SmallArtifacts,
    blinded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = blinded / "model.safetensors"
    before = weights.stat().st_mtime_ns
    given = [str(artifacts.encoder), str(artifacts.world)]
    assert benchmark.main([*given, str(blinded), *TINY]) == 0
    assert weights.stat().st_mtime_ns == before
    assert benchmark.main([*given, str(tmp_path / "again"), *TINY]) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights.read_bytes()
    capsys.readouterr()
    assert benchmark.main([*given, str(blinded), *TINY, "--seed", "1"]) == 3
    assert "made from something else" in capsys.readouterr().err


def test_what_is_no_world_is_refused(
    benchmark: Any, artifacts: SmallArtifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(artifacts.encoder), str(artifacts.encoder), str(tmp_path / "out")]
    assert benchmark.main(given) == 3
    assert "expected a glyph world" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
