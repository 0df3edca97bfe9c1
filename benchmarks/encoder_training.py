"""Encoder training against its peers: images per second as ratios in one run.

Work: CLIP with 64-pixel images in patches of 8 (width 192, six layers), texts of up to 16 tokens (width
192, four layers, vocabulary of 49,408), batch 128, AdamW. Interleaved, medians over the rounds:

- ``open_clip``: ``open_clip_train.main`` on its synthetic data, no workers; with ``--torchcompile`` too
- ``transformers``: ``CLIPModel`` in a plain loop on tensors in memory
- ``pretrain-encoder`` on a parquet file of images and captions that fill the text tower
- the same with ``--compile``
- ``distill-encoder`` from that encoder with one cached teacher, with and without the keep term

    python benchmarks/encoder_training.py [--rounds 2] [--steps 12] [--open-clip FOLDER] [--only NAME ...]

FOLDER holds open_clip_torch 3.3.0 (``pip install --target FOLDER --no-deps open_clip_torch ftfy braceexpand
webdataset``); without it that row is omitted. All are timed the same way, from one optimizer step to the next,
which excludes start-up, saving and the teacher's cached pass and includes data. Processor time (of all
threads) is more reliable than wall time where other work runs on the machine; use OMP_NUM_THREADS=1 for it.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH = 128
SKIP = 3

STAMPS = """
import atexit, json, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook
stamps = []
register_optimizer_step_post_hook(lambda *_: stamps.append((time.perf_counter(), time.process_time())))
atexit.register(lambda: print("STAMPS", json.dumps(stamps), flush=True))
"""

OPEN_CLIP = """
sys.path.insert(0, sys.argv[1])
import open_clip
open_clip.add_model_config(sys.argv[2])
from open_clip_train.main import main
main(sys.argv[3:])
"""

TRANSFORMERS = """
import torch
from transformers import CLIPConfig, CLIPModel
steps, precision = int(sys.argv[2]), sys.argv[3]
torch.manual_seed(0)
model = CLIPModel(CLIPConfig.from_json_file(sys.argv[1])).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
ids = torch.randint(0, 49000, (128, 16))
ids[:, 0], ids[:, -1] = 49406, 49407
pixels = torch.randn(128, 3, 64, 64)
for _ in range(steps):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, return_loss=True).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
"""

OURS = """
from priorkit.cli.main import run
code = run(sys.argv[1:])
assert code == 0, code
"""


def write_inputs(root: Path, images: int) -> None:
    """Write random images with random captions, entity folders, and the model shape in both tools' formats."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng, words = np.random.default_rng(0), random.Random(0)
    rows = {"image": [], "text": []}
    for number in range(images):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(stream, "PNG")
        rows["image"].append({"bytes": stream.getvalue(), "path": f"{number}.png"})
        rows["text"].append(" ".join("".join(words.choices("abcdefghij", k=6)) for _ in range(16)))
        if number < 10 * BATCH:
            folder = root / "entities" / f"entity {number % 64}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(stream.getvalue())
    pq.write_table(pa.table(rows), root / "pairs.parquet")
    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3,
              "image_size": 64, "patch_size": 8, "projection_dim": 192}  # fmt: skip
    text = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 3,
            "max_position_embeddings": 16, "vocab_size": 49408, "projection_dim": 192,
            "bos_token_id": 49406, "eos_token_id": 49407}  # fmt: skip
    shape = {"model_type": "clip", "projection_dim": 192, "vision_config": vision, "text_config": text}
    (root / "shape.json").write_text(json.dumps(shape))
    (root / "benchtiny.json").write_text(
        json.dumps(
            {
                "embed_dim": 192,
                "vision_cfg": {
                    "image_size": 64,
                    "layers": 6,
                    "width": 192,
                    "head_width": 64,
                    "patch_size": 8,
                },
                "text_cfg": {
                    "context_length": 16,
                    "vocab_size": 49408,
                    "width": 192,
                    "heads": 3,
                    "layers": 4,
                },
            }
        )
    )


def run(command: list[str]) -> str:
    """Run a command that must succeed; returns both of its output streams."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ... failed:\n{(done.stdout + done.stderr)[-2500:]}")
    return done.stdout + done.stderr


def command_of(name: str, root: Path, args: argparse.Namespace) -> list[str]:
    """The program and the arguments of one trainer."""
    steps, precision = str(args.steps + SKIP), args.precision
    common = ["--steps", steps, "--batch-size", str(BATCH), "--precision", precision, "--quiet", "--force",
              "--out", str(root / name.replace(" ", "-"))]  # fmt: skip
    if name.startswith("open_clip"):
        compiled = ["--torchcompile"] if name.endswith("compiled") else []
        return [OPEN_CLIP, args.open_clip, str(root), "--model", "benchtiny", "--dataset-type", "synthetic",
                "--train-num-samples", str(int(steps) * BATCH), "--batch-size", str(BATCH), "--epochs", "1",
                "--workers", "0", "--precision", "amp_bf16" if precision == "bf16" else "fp32",
                "--device", "cpu", "--logs", str(root / "logs"), "--save-frequency", "0",
                "--name", str(random.random()), "--warmup", "10", *compiled]  # fmt: skip
    if name == "transformers":
        return [TRANSFORMERS, str(root / "shape.json"), steps, precision]
    if name.endswith("compiled"):
        common.append("--compile")
    if name.startswith("pretrain-encoder"):
        return [OURS, "pretrain-encoder", str(root / "pairs.parquet"), "--config", str(root / "shape.json"),
                "--vocab-size", "49408", "--learning-rate", "5e-4", *common]  # fmt: skip
    return [OURS, "distill-encoder", str(root / "pretrain-encoder"), str(root / "entities"),
            "--keep-weight", "1" if "keep" in name else "0", "--teacher", str(root / "pretrain-encoder"),
            "--augment-shift", "0", *common]  # fmt: skip


def measure(name: str, root: Path, args: argparse.Namespace) -> tuple[float, float]:
    """Images per second of wall time and of processor time, medians over the steps of one run."""
    program, *words = command_of(name, root, args)
    # The result of an earlier round would be up to date.
    shutil.rmtree(root / name.replace(" ", "-"), ignore_errors=True)
    text = run([sys.executable, "-c", STAMPS + program, *words])
    stamps = json.loads(re.findall(r"^STAMPS (.*)$", text, re.MULTILINE)[-1])
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(stamps)][SKIP - 1 :]
    if not steps:
        sys.exit(f"{name}: {len(stamps)} steps were seen, {args.steps + SKIP} expected")
    return tuple(BATCH / statistics.median(column) for column in zip(*steps, strict=True))  # type: ignore[return-value]


def main() -> None:
    """Make the inputs, run all alternately, print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--only", nargs="*", help="names of the trainers, as they are printed")
    parser.add_argument("--open-clip", default="", metavar="FOLDER")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    names = ["open_clip", "open_clip compiled"] if args.open_clip else []
    names += ["transformers", "pretrain-encoder", "pretrain-encoder compiled"]
    names += ["distill-encoder", "distill-encoder compiled", "distill-encoder keep"]
    names = [name for name in names if not args.only or name in args.only]
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        os.environ["PRIORKIT_CACHE"] = str(root / "cache")
        write_inputs(root, 4096)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for _ in range(args.rounds):
            for name in names:
                rates[name].append(measure(name, root, args))
                print(f"{name}: {rates[name][-1][0]:.1f} images/s", file=sys.stderr)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, {args.precision}, "
        f"{args.rounds} rounds of {args.steps} steps; images per second, by wall time and by processor time"
    )
    middle = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in rates.items()
    }
    for name, runs in rates.items():
        every = " ".join(f"{clock:.1f}/{processor:.1f}" for clock, processor in runs)
        print(f"{name:<26} {middle[name][0]:7.1f} {middle[name][1]:7.1f}  ({every})")
    for peer in ("open_clip", "open_clip compiled", "transformers", "pretrain-encoder"):
        for name in names:
            if peer in middle and "encoder" in name and name != peer:
                clock, processor = (a / b for a, b in zip(middle[name], middle[peer], strict=True))
                print(f"{name}: {clock:.2f} times {peer} by wall time, {processor:.2f} by processor time")


if __name__ == "__main__":
    main()
