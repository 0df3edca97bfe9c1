"""Two processes under torchrun learn what one learns."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from priorkit.core.process import distributed
from tests.support.region_pairs import region_rows, write_pairs
from tests.support.torchrun import rows, torchrun

COMMON = ("--batch-size", "8", "--precision", "fp32", "--device", "cpu")

REGIONS = (
    "--preset", "pocket-tiny", "--vocab-size", "400", "--steps", "4", "--region-weight", "0.5",
    "--region-box-weight", "0.2", "--augment-shift", "4", *COMMON,
)  # fmt: skip

SCRIPT = """
import sys, json
from priorkit.cli.main import run
import torch
from priorkit.core.process import runtime
from priorkit.core.process import distributed

for command in json.loads(sys.argv[1]):
    code = run(command)
    assert code == 0, (command, code)

both, one, none = (torch.nn.Parameter(torch.zeros(2)) for _ in range(3))
both.grad = torch.full((2,), 1.0 + runtime.rank())
if runtime.rank() == 1:
    one.grad = torch.ones(2)
distributed.sum_gradients([both, one, none])
assert both.grad.tolist() == [3.0, 3.0]
assert one.grad.tolist() == [1.0, 1.0]
assert none.grad is None
assert distributed.any_process(runtime.rank() == 1)
assert not distributed.any_process(False)
assert distributed.all_texts("ä" * runtime.rank()) == ["", "ä"]
distributed.barrier()
distributed.stop()
"""


@pytest.fixture(scope="module")
def both(artifacts, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each step's result by one process and by two."""
    root = tmp_path_factory.mktemp("both")
    text = root / "own.jsonl"
    text.write_text(json.dumps({"text": "".join(f" {number}" for number in range(41))}) + "\n")
    regions = write_pairs(root / "regions.parquet", region_rows(32, keep=lambda row: row % 5 == 0))
    commands = {
        # Five rows of held-out text: the two processes have unequal numbers of batches.
        "pretrain": (
            "pretrain", str(artifacts.corpus), "--preset", "pocket-tiny", "--steps", "6", "--micro-batch-size", "2",
            "--eval", f"own={text}", "--eval-every", "3", *COMMON,
        ),
        "pretrain-encoder": (
            "pretrain-encoder", str(artifacts.pairs), "--preset", "pocket-tiny", "--vocab-size", "400", "--steps", "4",
            *COMMON,
        ),
        "siglip": (
            "pretrain-encoder", str(artifacts.pairs), "--preset", "pocket-tiny", "--vocab-size", "400", "--steps", "4",
            "--loss", "siglip", "--gradient-cache", "3", *COMMON,
        ),
        # Half of the batches of a process have no region.
        "regions": ("pretrain-encoder", str(regions), *REGIONS),
        "regions-siglip": ("pretrain-encoder", str(regions), *REGIONS, "--loss", "siglip", "--gradient-cache", "3"),
        "distill-encoder": (
            "distill-encoder", str(artifacts.encoder), str(artifacts.images), "--steps", "3", "--contrastive", "infonce",
            "--teacher", str(artifacts.encoder), "--relational-weight", "1", "--replay", str(artifacts.pairs), *COMMON,
        ),
        "tune": (
            "tune", str(artifacts.mllm), str(artifacts.instructions), "--train", "projector,llm,encoder", "--steps", "3",
            "--weight-decay", "0.5", *COMMON,
        ),
    }  # fmt: skip
    for name, words in commands.items():
        found = cli(*words, "--out", root / f"{name}-1")
        assert found.code == 0, found.err
    script = root / "script.py"
    script.write_text(SCRIPT)
    two = [[*words, "--out", str(root / f"{name}-2")] for name, words in commands.items()]
    # The same run with sharded weights and an export on the way.
    sharded = [*commands["pretrain"], "--shard", "--export-at", "512,1024", "--checkpoint-every", "2"]
    two.append([*sharded, "--out", str(root / "shard-2")])
    # An export annealed on a branch, after which the run goes on as if there had been none.
    annealed = [*commands["pretrain"], "--export-at", "1024", "--export-decay", "0.5"]
    found = cli(*annealed, "--out", root / "annealed-1")
    assert found.code == 0, found.err
    two.append([*annealed, "--shard", "--out", str(root / "annealed-2")])
    (root / "shard-1").symlink_to(root / "pretrain-1")
    done = subprocess.run(
        torchrun(script, json.dumps(two)), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [str(root / f"{name}-2") for name in (*commands, "shard", "annealed")]
    assert sum("eval/own/loss" in row for row in rows(root / "pretrain-1")) == 2
    return root


RUNS = (
    "pretrain",
    "shard",
    "annealed",
    "pretrain-encoder",
    "siglip",
    "regions",
    "regions-siglip",
    "distill-encoder",
    "tune",
)


@pytest.mark.parametrize("step", RUNS)
def test_two_processes_give_the_losses_and_gradients_of_one(both: Path, step: str) -> None:
    one, two = rows(both / f"{step}-1"), rows(both / f"{step}-2")
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert set(a) == set(b)
        for name, value in a.items():
            tolerance = 1e-5 if name == "loss" else 1e-4
            assert b[name] == pytest.approx(value, rel=tolerance, abs=1e-7), (a["step"], name)


@pytest.mark.parametrize("step", RUNS)
def test_two_processes_give_the_weights_of_one(both: Path, step: str) -> None:
    import torch
    from safetensors.torch import load_file

    one, two = (load_file(both / f"{step}-{count}" / "model.safetensors") for count in (1, 2))
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=2e-4, msg=name)


def test_an_export_of_sharded_weights_is_complete(both: Path) -> None:
    from transformers import AutoModelForCausalLM

    early, late = both / "shard-2-at-512", both / "shard-2"
    shapes = [
        {name: value.shape for name, value in AutoModelForCausalLM.from_pretrained(path).state_dict().items()}
        for path in (early, late)
    ]
    assert shapes[0] == shapes[1]


def test_an_annealed_export_of_sharded_weights_is_that_of_one_process(both: Path) -> None:
    """Loss curve of the branch, its weights, and the run after it."""
    import torch
    from safetensors.torch import load_file

    one, two, plain = (
        load_file(both / f"{name}-at-1024" / "model.safetensors")
        for name in ("annealed-1", "annealed-2", "shard-2")
    )
    assert set(one) == set(two)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=2e-6, msg=name)
    # The annealed step's learning rate is lower, by more than two processes round differently.
    assert max(float((plain[name] - value).abs().max()) for name, value in two.items()) > 1e-5
    for a, b in zip(rows(both / "pretrain-1"), rows(both / "annealed-2"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)


def test_a_run_stopped_on_two_processes_resumes_on_one(artifacts, cli, tmp_path: Path) -> None:
    out = tmp_path / "llm"
    words = (
        "pretrain", artifacts.corpus, "--preset", "pocket-tiny", "--steps", 150, *COMMON, "--checkpoint-every", 10,
        "--out", out,
    )  # fmt: skip
    process = subprocess.Popen(torchrun("-m", "priorkit", *words), stderr=subprocess.PIPE, text=True)
    state = tmp_path / "llm.partial" / "state"
    deadline = time.monotonic() + 120
    while not list(state.glob("step-*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert "the state is saved" in err
    assert not out.exists()
    again = cli(*words)
    assert again.code == 0, again.err
    assert "resuming at step" in again.err
    found = cli(*words[:-2], "--out", tmp_path / "whole")
    assert found.code == 0
    for a, b in zip(rows(out), rows(tmp_path / "whole"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_four_processes_train_on_the_samples_of_one(both: Path, artifacts, tmp_path: Path) -> None:
    words = (
        "pretrain",
        artifacts.corpus,
        "--preset",
        "pocket-tiny",
        "--steps",
        6,
        *COMMON,
        "--out",
        tmp_path / "llm",
    )
    command = torchrun("-m", "priorkit", *words, processes=4)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    for a, b in zip(rows(both / "pretrain-1"), rows(tmp_path / "llm"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused(
    artifacts, cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    found = cli(
        "pretrain",
        artifacts.corpus,
        "--preset",
        "pocket-tiny",
        *COMMON,
        "--steps",
        1,
        "--out",
        tmp_path / "x",
    )
    assert found.code == 2
    assert "--batch-size 8 cannot be split among 3 processes" in found.err


def test_shares_cover_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3, 7):
        monkeypatch.setenv("WORLD_SIZE", str(size))
        covered: list[int] = []
        for rank in range(size):
            monkeypatch.setenv("RANK", str(rank))
            covered.extend(distributed.share(20))
        assert covered == list(range(20))
