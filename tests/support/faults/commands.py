"""A short command of every step and variant, on small artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.small_artifacts import FP32, SmallArtifacts, run_in_process

GOLDEN = Path(__file__).parents[2] / "golden"
ADAPTERS = (GOLDEN / "lora" / "adapter_a", GOLDEN / "lora" / "adapter_b")
LLM = GOLDEN / "tiny-llama"

Words = tuple[object, ...]

TRAINING = (
    "pretrain",
    "blind-tune",
    "pretrain-encoder",
    "distill-encoder",
    "align",
    "tune",
    "tune-lora",
    "tune-lion",
)
"""Commands that save checkpoints."""

_TINY_WORLD = (
    "--seed", 3, "--strong", 12, "--weak", 3, "--none", 3, "--pairs", 24, "--pairs-test", 6, "--weak-pairs", 2,
    "--entity-images-train", 1, "--entity-images-test", 1, "--captions", 8, "--instructions", 20,
    "--naming-questions", 1, "--benchmark-questions", 6, "--annotated", 4, "--text-characters", 2000,
    "--python-characters", 3000, "--workers", 1,
)  # fmt: skip
_LION = (
    "--architecture", "lion", "--stage", "all", "--adapter-width", 8, "--queries", 3, "--qformer-width", 16,
    "--qformer-heads", 2, "--qformer-layers", 1, "--aggregator-heads", 2,
)  # fmt: skip
_PROMPT = '[chat]\nuser = "{text}\\n{label}?"\nyes = ["Yes"]\nno = ["No"]\n[plain]\ntext = "{text}\\n{label}?"\nyes = [" yes"]\nno = [" no"]\n'


def _as_pickle(llm: Path, folder: Path) -> Path:
    """A language model with its weights in PyTorch's format."""
    import torch
    from safetensors.torch import load_file

    if not folder.exists():
        shutil.copytree(llm, folder, ignore=shutil.ignore_patterns("*.safetensors", "priorkit.json"))
        torch.save(load_file(llm / "model.safetensors"), folder / "pytorch_model.bin")
    return folder


def every_command(artifacts: SmallArtifacts, folder: Path) -> dict[str, Words]:
    """Commands without ``--out``, by name; what they need besides the artifacts is made in a folder."""
    from priorkit.data.text.concepts import CONCEPTS

    prompt = folder / "prompt.toml"
    labels = (f'[labels.{name}]\nlabel = "{name}"\ndefinition = "{name[:6]}"\n' for name in CONCEPTS)
    prompt.write_text(_PROMPT + "".join(labels), encoding="utf-8")
    world = artifacts.world
    naming = world / "benchmarks" / "naming.parquet"
    pickled = _as_pickle(artifacts.llm, folder / "pickled")
    training = ("--steps", 5, "--batch-size", 4, "--warmup-steps", 1, "--checkpoint-every", 2, *FP32)
    tuning = ("tune", artifacts.mllm, artifacts.instructions, *training)
    labelling = (
        "label-corpus", f"facts={artifacts.facts}", "--labeller", artifacts.llm, "--prompt", prompt, "--segment-tokens", 48,
        "--form", "plain", "--max-documents", 24, *FP32,
    )  # fmt: skip
    mixing = (
        "mix", f"facts={artifacts.facts}", "--tokenizer", artifacts.tokenizer, "--context-length", 32, "--workers", 1,
    )  # fmt: skip
    evaluating = ("evaluate", artifacts.encoder, naming, "--resamples", 100, *FP32)
    answers = folder / "answers"
    if not answers.exists():
        made = run_in_process(*evaluating, "--out", answers)
        assert made.code == 0, made.err
    return {
        "glyph-world": ("glyph-world", *_TINY_WORLD),
        "tokenizer": ("tokenizer", f"facts={artifacts.facts}", "--vocab-size", 300),
        "label-corpus": labelling,
        "label-corpus-distilled": (*labelling, "--distil-labeller", "--sample", 24, "--held-out", 0.4),
        "mix": (*mixing, "--tokens", 1000),
        "mix-shard": (*mixing, "--shard", "1/2"),
        "suggest-mix": (
            "suggest-mix", "--table", GOLDEN / "lsbs" / "grid.csv", "--shares", "reasoning,visual", "--remainder", "rest",
            "--score", "vision_accuracy", "--resamples", 60,
        ),
        "pretrain": ("pretrain", artifacts.corpus, "--preset", "pocket-tiny", *training),
        "blind-tune": ("blind-tune", artifacts.llm, artifacts.instructions, *training),
        "pretrain-encoder": (
            "pretrain-encoder", artifacts.pairs, "--preset", "pocket-tiny", "--vocab-size", 400, *training,
        ),
        "distill-encoder": ("distill-encoder", artifacts.encoder, artifacts.images, *training),
        "align": ("align", artifacts.llm, artifacts.encoder, artifacts.captions, *training),
        "tag-images": ("tag-images", naming, artifacts.encoder, "--vocabulary", world / "names.txt", "--threshold", 0.2, *FP32),
        "tune": (*tuning, "--train", "projector,llm,encoder"),
        "tune-lora": (*tuning, "--lora-rank", 2),
        "tune-lion": (*tuning, *_LION),
        "merge-adapters": ("merge-adapters", *ADAPTERS, "--method", "ties", "--density", 0.5),
        "merge-adapters-base": ("merge-adapters", *ADAPTERS, "--base", LLM, "--method", "linear"),
        "rank-e": ("rank-e", artifacts.encoder, artifacts.images, *FP32),
        "representation-alignment": (
            "representation-alignment", artifacts.llm, artifacts.pairs, artifacts.encoder, "--neighbours", 4,
            "--resamples", 100, *FP32,
        ),
        "mle-bench": ("mle-bench", world / "annotated"),
        "evaluate": evaluating,
        "evaluate-mllm": ("evaluate", artifacts.mllm, naming, "--limit", 6, "--resamples", 100, *FP32),
        "correlate": ("correlate", artifacts.scores, answers, "--bins", 3, "--resamples", 100),
        "convert": ("convert", pickled),
        "convert-data": ("convert-data", artifacts.images, "--format", "naming"),
        "stress-test": (
            "stress-test", artifacts.llm, naming, "--folds", 2, "--batch-size", 4, "--resamples", 100, *FP32,
        ),
        "diagnose": ("diagnose", artifacts.mllm, artifacts.images, "--resamples", 100, *FP32),
        "report": ("report", artifacts.scores, answers, "--resamples", 100),
    }  # fmt: skip
