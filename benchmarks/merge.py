"""Merging against its peers: wall time and peak memory of complete processes, as ratios in one run.

Work: two random Llamas of 468 million parameters (bf16, four shards) and one LoRA of rank 16 in all
projections, made in a temporary folder. Compared, interleaved, medians over the runs:

- fold the LoRA into the model: PEFT's ``merge_and_unload`` and ``save_pretrained``
- average of two models: mergekit's ``linear``
- TIES of one model onto its base at density 0.5: mergekit's ``ties``
- lower bound: copying one model's files

    python benchmarks/merge.py [--runs 3] [--mergekit PYTHON] [--layers 24]

PYTHON is an interpreter that can import mergekit 0.1.5; without it mergekit's rows are omitted. Our
times include hashing all inputs and the result, and forcing the result to the disk; those of the peers do not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MAKE = """
import sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
from peft import LoraConfig, get_peft_model
root, layers = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(LlamaConfig(vocab_size=32000, hidden_size=1024, intermediate_size=4096,
    num_hidden_layers=layers, num_attention_heads=16, num_key_value_heads=16, max_position_embeddings=2048))
model.save_pretrained(root + "/a", max_shard_size="300MB")
peft = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
with torch.no_grad():
    for name, values in peft.named_parameters():
        if "lora_B" in name:
            values.normal_(0, 0.01)
peft.peft_config["default"].base_model_name_or_path = root + "/a"
peft.save_pretrained(root + "/lora")
model = peft.unload()
with torch.no_grad():
    for values in model.parameters():
        values.add_(torch.randn_like(values), alpha=0.005)
model.save_pretrained(root + "/b", max_shard_size="300MB")
"""

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload()
model.save_pretrained(sys.argv[3], max_shard_size="300MB")
"""


@dataclass
class Run:
    """One process: wall seconds and peak resident memory in MB."""

    seconds: float
    megabytes: float


def measure(command: list[str], out: Path) -> Run:
    """Run a command after removing its output folder."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    begun = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            sys.exit(f"{command} failed:\n{log.read().decode(errors='replace')[-2000:]}")
    return Run(seconds, usage.ru_maxrss / 1024)


def commands(root: Path, out: Path, mergekit: str) -> dict[str, list[str]]:
    """The commands compared, by name."""
    a, b, lora = str(root / "a"), str(root / "b"), str(root / "lora")
    ours = [sys.executable, "-m", "priorkit", "merge-adapters", "--quiet", "--out", str(out)]
    rows = {
        "fold: priorkit": [*ours, lora, "--base", a],
        "fold: peft": [sys.executable, "-c", PEFT, a, lora, str(out)],
        "linear: priorkit": [*ours, a, b, "--method", "linear", "--weight", "0.5"],
        "ties: priorkit": [*ours, b, "--base", a, "--method", "ties", "--density", "0.5"],
        "copy of one model": ["cp", "-r", a, str(out)],
    }
    if mergekit:
        tool = [mergekit, "-m", "mergekit.scripts.run_yaml"]
        for name in ("linear", "ties"):
            rows[f"{name}: mergekit"] = [
                *tool, str(root / f"{name}.yaml"), str(out), "--out-shard-size", "300M",
            ]  # fmt: skip
    return rows


def write_mergekit_configs(root: Path) -> None:
    """Write the two merges as mergekit configurations (JSON is valid YAML)."""
    a, b = str(root / "a"), str(root / "b")
    linear = {
        "models": [{"model": path, "parameters": {"weight": 0.5}} for path in (a, b)],
        "merge_method": "linear",
        "dtype": "bfloat16",
    }
    ties = {
        "models": [{"model": b, "parameters": {"weight": 1.0, "density": 0.5}}],
        "merge_method": "ties",
        "base_model": a,
        "dtype": "bfloat16",
    }
    for name, content in (("linear", linear), ("ties", ties)):
        (root / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Make the models, measure, print a table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--mergekit", default="", metavar="PYTHON")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        root, out = Path(temporary), Path(temporary) / "out"
        subprocess.run(
            [sys.executable, "-c", MAKE, str(root), str(args.layers)], check=True, stderr=subprocess.DEVNULL
        )
        write_mergekit_configs(root)
        table = commands(root, out, args.mergekit)
        runs: dict[str, list[Run]] = {name: [] for name in table}
        for _ in range(args.runs):
            for name, command in table.items():
                runs[name].append(measure(command, out))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {args.runs} runs")
    seconds = {name: statistics.median(run.seconds for run in rows) for name, rows in runs.items()}
    for name in sorted(seconds):
        every = " ".join(f"{run.seconds:.2f}" for run in runs[name])
        peak = max(run.megabytes for run in runs[name])
        print(f"{name:<18} {seconds[name]:6.2f} s  ({every})  peak {peak:5.0f} MB")
    for work, peer in (("fold", "peft"), ("linear", "mergekit"), ("ties", "mergekit")):
        if f"{work}: {peer}" in seconds:
            ratio = seconds[f"{work}: {peer}"] / seconds[f"{work}: priorkit"]
            print(f"{work}: {ratio:.1f} times as fast as {peer}")


if __name__ == "__main__":
    main()
