"""Tuning with parameters shared among two processes (FSDP2) learns what one process learns."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.torchrun import rows, torchrun

SHORT = ("--precision", "fp32", "--device", "cpu", "--warmup-steps", "0")

SCRIPT = """
import sys, json
from priorkit.cli.main import run
from priorkit.core.process import distributed
from priorkit.training.finetuning.objective import InstructionObjective

commands = json.loads(sys.argv[1])
total, calls = InstructionObjective._summed_loss, []

def broken(self, batch):
    calls.append(batch)
    return total(self, batch) * (float("nan") if len(calls) == 3 else 1)

# The first command's third step is not finite; the checkpoint before it is kept, and the run resumes from it.
InstructionObjective._summed_loss = broken
assert run(commands[0]) == 5
InstructionObjective._summed_loss = total
distributed.barrier()
for command in commands:
    code = run(command)
    assert code == 0, (command, code)
distributed.barrier()
distributed.stop()
"""


def one_picture(folder: Path) -> Path:
    """Eight conversations, of which one has an image: most steps have a process without, some have none."""
    Image.effect_noise((48, 48), 80).convert("RGB").save(folder / "a.png")
    talks: list[dict[str, Any]] = []
    for number in range(8):
        question = ("<image>\n" if number == 0 else "") + f"question {number}"
        talk = [{"from": "human", "value": question}, {"from": "gpt", "value": "answer " * (number + 1)}]
        talks.append({"conversations": talk, **({"image": "a.png"} if number == 0 else {})})
    path = folder / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in talks))
    return path


@pytest.fixture(scope="module")
def both(artifacts, cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of each arm by one process, and by two that share parameters."""
    root = tmp_path_factory.mktemp("shared")
    seldom = ("--epochs", "2", "--batch-size", "4", "--weight-decay", "0.5")
    short = ("--steps", "3", "--batch-size", "4")
    source = str(one_picture(root))
    arms = {
        "whole": ("tune", str(artifacts.mllm), source, "--train", "projector,llm,encoder", *seldom),
        "lora": (
            "tune",
            str(artifacts.mllm),
            str(artifacts.instructions),
            "--lora-rank",
            "2",
            "--dora",
            *short,
        ),
        "blind": ("blind-tune", str(artifacts.mllm), source, "--placeholder", "learned", *seldom),
        # The frozen decoder's layers are shared; LION's parts are whole in both processes. The Q-Former is left out:
        # its dropout, as in BERT, draws from a generator per process.
        "lion": (
            "tune",
            str(artifacts.mllm),
            str(artifacts.instructions),
            "--architecture",
            "lion",
            "--stage",
            "all",
            "--branches",
            "aggregator,projector",
            "--tags",
            "soft",
            "--aggregator-heads",
            "4",
            "--aggregator-dropout",
            "0",
            "--learning-rate",
            "1e-2",
            *short,
        ),
        "align": ("align", str(artifacts.llm), str(artifacts.encoder), str(artifacts.captions), *short),
    }
    for name, words in arms.items():
        found = cli(*words, *SHORT, "--out", root / f"{name}-1")
        assert found.code == 0, found.err
    script = root / "script.py"
    script.write_text(SCRIPT)
    shared = [[*words, *SHORT, "--shard", "--out", str(root / f"{name}-2")] for name, words in arms.items()]
    shared[0] += ["--checkpoint-activations", "full"]
    done = subprocess.run(
        torchrun(script, json.dumps(shared)), capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the first non-finite tensor is the gradient of" in done.stderr
    assert "resuming at step 2 of 4" in done.stderr
    return root


@pytest.mark.parametrize("arm", ["whole", "lora", "blind", "lion", "align"])
def test_shared_parameters_learn_the_same(both: Path, arm: str) -> None:
    one, two = rows(both / f"{arm}-1"), rows(both / f"{arm}-2")
    assert len(one) == len(two) > 2
    for a, b in zip(one, two, strict=True):
        for name, value in a.items():
            assert b[name] == pytest.approx(value, rel=1e-4, abs=1e-7), (a["step"], name)
    files = {"lora": ("adapter_model",), "lion": ("adapter_model",), "blind": ("model", "placeholder")}.get(
        arm, ("model",)
    )
    for file in files:
        single, shared = (load_file(both / f"{arm}-{count}" / f"{file}.safetensors") for count in (1, 2))
        assert set(single) == set(shared)
        for name, value in single.items():
            assert shared[name].dtype == value.dtype
            torch.testing.assert_close(shared[name], value, rtol=1e-3, atol=2e-4, msg=name)


def test_what_was_shared_loads_in_transformers(both: Path, artifacts) -> None:
    from peft import PeftModel
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    models = [LlavaForConditionalGeneration.from_pretrained(both / f"{arm}-2") for arm in ("whole", "align")]
    assert models[0].config.architectures == ["LlavaForConditionalGeneration"]
    AutoProcessor.from_pretrained(both / "whole-2")
    PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(artifacts.mllm), both / "lora-2")
