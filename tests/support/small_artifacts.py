"""Small artifacts that tests and benchmarks read, made by the command line itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SMALL_WORLD = (
    "--seed", "7", "--strong", "24", "--weak", "6", "--none", "6",
    "--pairs", "80", "--pairs-test", "10", "--weak-pairs", "3", "--entity-images-train", "2",
    "--entity-images-test", "2", "--captions", "20", "--instructions", "120", "--naming-questions", "1",
    "--benchmark-questions", "24", "--annotated", "18", "--text-characters", "6000", "--python-characters", "20000",
)  # fmt: skip
"""A world that is made in a second."""

FP32 = ("--precision", "fp32", "--device", "cpu")
"""Arithmetic that does not depend on the processor's."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def path(self) -> Path:
        """The path that standard output carries."""
        return Path(self.out.strip())


def run_in_process(*args: object) -> Result:
    """Run a command line in this process."""
    from priorkit.cli import main, output

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.run([str(arg) for arg in args])
        finally:
            output.configure()
    return Result(code, out.getvalue(), err.getvalue())


def _made(result: Result) -> Path:
    assert result.code == 0, result.err
    return result.path


@dataclass(frozen=True)
class SmallArtifacts:
    """Paths of one small artifact of each kind."""

    world: Path
    tokenizer: Path
    corpus: Path
    llm: Path
    encoder: Path
    mllm: Path
    scores: Path

    @property
    def facts(self) -> Path:
        """A text source."""
        return next(iter(sorted((self.world / "text").glob("*.jsonl"))))

    @property
    def pairs(self) -> Path:
        """Image-text pairs."""
        return self.world / "pairs" / "train.parquet"

    @property
    def images(self) -> Path:
        """Entity images, a folder per entity."""
        return self.world / "entity_images" / "test"

    @property
    def captions(self) -> Path:
        """Captions as conversations."""
        return self.world / "captions" / "train.parquet"

    @property
    def instructions(self) -> Path:
        """Instructions with images."""
        return self.world / "instructions" / "train.parquet"


def make_small_artifacts(root: Path, run: Callable[..., Result] = run_in_process) -> SmallArtifacts:
    """Make one small artifact of each kind below a folder, each by its step."""

    def make(step: str, *args: object) -> Path:
        return _made(run(step, *args, "--out", root / step))

    world = make("glyph-world", *SMALL_WORLD)
    sources = [f"{file.stem}={file}" for file in sorted((world / "text").glob("*.jsonl"))]
    tokenizer = make("tokenizer", *sources, "--vocab-size", 400)
    corpus = make("mix", *sources, "--tokenizer", tokenizer, "--tokens", "8k", "--context-length", 32)
    short = ("--steps", 3, "--batch-size", 8, "--warmup-steps", 1, *FP32)
    llm = make("pretrain", corpus, "--preset", "pocket-tiny", *short)
    pairs = world / "pairs" / "train.parquet"
    encoder = make("pretrain-encoder", pairs, "--preset", "pocket-tiny", "--vocab-size", 400, *short)
    mllm = make("align", llm, encoder, world / "captions" / "train.parquet", *short)
    scores = make("rank-e", encoder, world / "entity_images" / "test", "--device", "cpu")
    return SmallArtifacts(world, tokenizer, corpus, llm, encoder, mllm, scores)
