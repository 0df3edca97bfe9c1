"""Tokens per second of `priorkit pretrain` against transformers' Trainer and litgpt on the same model and rows.

    python benchmarks/pretrain.py [--size 9m|60m] [--repeats 3] [--precision auto] [--litgpt FOLDER]

FOLDER holds litgpt 0.5.13 (``pip install --target FOLDER --no-deps litgpt lightning lightning-utilities
torchmetrics``); without it that side, which always compiles, is omitted. All train the same Llama on the
same corpus with AdamW, clipping and a cosine schedule. A rate is from the median time between two optimizer
steps, which excludes imports, building and compilation and includes data, logging and everything else between
two steps. Runs are interleaved; medians and their ratios are printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {
    "9m": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 4, "length": 512, "batch": 8},
    "60m": {"hidden_size": 640, "intermediate_size": 1760, "num_hidden_layers": 10, "num_attention_heads": 10, "length": 1024, "batch": 4},
}  # fmt: skip
VOCABULARY = 8192
SKIP = 3
"""Untimed steps at the start, the first of which compile."""


def make_inputs(folder: Path, size: dict[str, int]) -> None:
    """Write a corpus of the standard library's source with its tokenizer, and the model's configuration."""
    library = Path(os.__file__).parent
    source = folder / "source.jsonl"
    if not source.exists():
        files = sorted(library.glob("*.py")) + sorted(library.glob("[a-z]*/*.py"))
        texts = [file.read_text("utf-8", errors="ignore") for file in files if "test" not in str(file)]
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text))
        run_priorkit(
            "tokenizer", f"python={source}", "--vocab-size", VOCABULARY, "--out", folder / "tokenizer"
        )
    corpus = folder / f"corpus-{size['length']}"
    if not corpus.exists():
        run_priorkit(
            "mix", f"python={source}", "--tokenizer", folder / "tokenizer",
            "--context-length", size["length"], "--out", corpus,
        )  # fmt: skip
    fields = {name: value for name, value in size.items() if name not in ("length", "batch")}
    fields |= {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "num_key_value_heads": size["num_attention_heads"],
        "max_position_embeddings": size["length"],
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(fields))


def run_priorkit(*words: object) -> None:
    command = [sys.executable, "-m", "priorkit", *map(str, words), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


STAMPS = """
import atexit, json, sys, time
from torch.optim.optimizer import register_optimizer_step_post_hook
stamps = []
register_optimizer_step_post_hook(lambda *_: stamps.append(time.perf_counter()))
atexit.register(lambda: print("STAMPS", json.dumps(stamps), flush=True))
"""

OURS = """
from priorkit.cli.main import run
code = run(sys.argv[1:])
assert code == 0, code
"""

PEER = """
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def command_of(side: str, folder: Path, args: argparse.Namespace) -> list[str]:
    """The program and the arguments of one side."""
    size, steps, compiled = SIZES[args.size], args.steps + SKIP, side.endswith("compiled")
    if side.startswith("priorkit"):
        words = [
            "pretrain", folder / f"corpus-{size['length']}", "--config", folder / "config.json", "--steps", steps,
            "--batch-size", size["batch"], "--precision", args.precision, "--device", "cpu",
            "--compile" if compiled else "--no-compile", "--out", folder / "made", "--force", "--quiet",
        ]  # fmt: skip
        return [OURS, *map(str, words)]
    peer = "litgpt" if side == "litgpt" else "trainer"
    words = [__file__, "--as", peer, "--folder", folder, "--size", args.size, "--steps", steps,
             "--precision", args.precision, *(["--compile"] if compiled else [])]  # fmt: skip
    return [PEER, *map(str, words)]


def measure(side: str, folder: Path, args: argparse.Namespace) -> float:
    """Tokens per second of one run, from the median time between two optimizer steps."""
    program, *words = command_of(side, folder, args)
    command = [sys.executable, "-c", STAMPS + program, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{(done.stdout + done.stderr)[-2500:]}")
    stamps = json.loads(re.findall(r"^STAMPS (.*)$", done.stdout, re.MULTILINE)[-1])
    seconds = statistics.median(b - a for a, b in itertools.pairwise(stamps[SKIP - 1 :]))
    return SIZES[args.size]["batch"] * SIZES[args.size]["length"] / seconds


def trainer(folder: Path, size: dict[str, int], steps: int, compiled: bool, precision: str) -> None:
    """Train with transformers' Trainer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments

    from priorkit.core.process.runtime import resolve_precision
    from priorkit.data.corpus.reader import Corpus

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "config.json"))
    rows = Corpus(folder / f"corpus-{size['length']}")

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            ids = torch.from_numpy(rows.row(index))
            return {"input_ids": ids, "labels": ids}

    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"), per_device_train_batch_size=size["batch"], max_steps=steps,
        bf16=resolve_precision(precision, torch.device("cpu")) == "bf16", torch_compile=compiled,
        use_cpu=True, optim="adamw_torch_fused", learning_rate=3e-4, weight_decay=0.1,
        lr_scheduler_type="cosine", max_grad_norm=1.0, logging_strategy="no", save_strategy="no",
        report_to=[], disable_tqdm=True, seed=0,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=Rows()).train()


def litgpt(folder: Path, size: dict[str, int], steps: int, precision: str) -> None:
    """Train with litgpt's pretraining loop."""
    import torch

    from priorkit.core.process.runtime import resolve_precision
    from priorkit.data.corpus.reader import Corpus

    # lightning reads the command line when it is imported.
    sys.argv = sys.argv[:1]
    import litgpt.pretrain
    from litgpt import Config
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    rows = Corpus(folder / f"corpus-{size['length']}")

    class Rows(DataModule):
        def connect(self, tokenizer: object = None, batch_size: int = 1, **_: object) -> None:
            self.rows_at_once = batch_size

        def train_dataloader(self) -> torch.utils.data.DataLoader:
            # litgpt's sequences have length + 1 tokens, so that every position has a target.
            ids = [torch.from_numpy(rows.row(index)) for index in range(len(rows))]
            longer = [torch.cat([row, following[:1]]) for row, following in itertools.pairwise(ids)]
            return torch.utils.data.DataLoader(longer, batch_size=self.rows_at_once, shuffle=True)

        val_dataloader = train_dataloader

    shape = Config(
        name="benchmark", block_size=size["length"], vocab_size=VOCABULARY, padded_vocab_size=VOCABULARY,
        n_layer=size["num_hidden_layers"], n_head=size["num_attention_heads"],
        n_query_groups=size["num_attention_heads"], n_embd=size["hidden_size"],
        intermediate_size=size["intermediate_size"], rotary_percentage=1.0, parallel_residual=False,
        bias=False, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP", norm_eps=1e-6,
    )  # fmt: skip
    bf16 = resolve_precision(precision, torch.device("cpu")) == "bf16"
    litgpt.pretrain.save_checkpoint = lambda *_, **__: None
    litgpt.pretrain.setup(
        "benchmark", model_config=shape, out_dir=folder / "litgpt",
        precision="bf16-mixed" if bf16 else "32-true", data=Rows(), devices=1, logger_name="csv",
        train=TrainArgs(
            save_interval=None, log_interval=1, global_batch_size=size["batch"],
            micro_batch_size=size["batch"], max_tokens=steps * size["batch"] * size["length"], max_norm=1.0,
            min_lr=4e-5, lr_warmup_steps=1, tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
    )  # fmt: skip


def compare(args: argparse.Namespace) -> None:
    """Run all sides alternately; print each rate, then medians and ratios."""
    args.folder.mkdir(exist_ok=True)
    make_inputs(args.folder, SIZES[args.size])
    sides = ["Trainer", "Trainer compiled", "priorkit", "priorkit compiled"]
    if args.litgpt:
        os.environ["PYTHONPATH"] = os.pathsep.join([args.litgpt, os.environ.get("PYTHONPATH", "")])
        sides.append("litgpt")
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(args.repeats):
        for side in sides:
            rates[side].append(measure(side, args.folder, args))
            print(f"{side:<18} {rates[side][-1]:8,.0f} tokens/s", flush=True)
    peers = [side for side in ("Trainer", "Trainer compiled", "litgpt") if side in rates]
    for side, measured in rates.items():
        middle = statistics.median(measured)
        ratios = ", ".join(f"{middle / statistics.median(rates[peer]):.2f} x {peer}" for peer in peers)
        print(f"{side:<18} median {middle:8,.0f} tokens/s   {ratios}")


def main() -> None:
    """Compare all sides, or be one of the peers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="9m")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10, help="timed optimizer steps per run")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "priorkit-benchmark")
    parser.add_argument("--litgpt", default="", metavar="FOLDER")
    parser.add_argument("--as", dest="peer", choices=("trainer", "litgpt"), help=argparse.SUPPRESS)
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer == "trainer":
        trainer(args.folder, SIZES[args.size], args.steps, args.compile, args.precision)
    elif args.peer == "litgpt":
        litgpt(args.folder, SIZES[args.size], args.steps, args.precision)
    else:
        compare(args)


if __name__ == "__main__":
    main()
