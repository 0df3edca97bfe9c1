"""Small artifacts that many tests read, made once by the command line itself."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# No test is timed: a busy machine must not fail a property.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Before torch or the hub's client are imported: one thread, no network, no progress bars.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Features kept by one test run must not be found by the next.
os.environ["PRIORKIT_CACHE"] = tempfile.mkdtemp(prefix="priorkit-cache-")
atexit.register(shutil.rmtree, os.environ["PRIORKIT_CACHE"], ignore_errors=True)

SMALL_WORLD = [
    "--seed",
    "7",
    "--strong",
    "24",
    "--weak",
    "6",
    "--none",
    "6",
    "--pairs",
    "80",
    "--pairs-test",
    "10",
    "--weak-pairs",
    "3",
    "--entity-images-train",
    "2",
    "--entity-images-test",
    "2",
    "--captions",
    "20",
    "--instructions",
    "120",
    "--naming-questions",
    "1",
    "--benchmark-questions",
    "24",
    "--annotated",
    "18",
    "--text-characters",
    "6000",
    "--python-characters",
    "20000",
]
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


Cli = Callable[..., Result]


def _run(*args: object) -> Result:
    from priorkit.cli import main, output

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main.run([str(arg) for arg in args])
        finally:
            output.configure()
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Features are kept in a folder of the tests, not in the user's cache."""
    os.environ["PRIORKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command line in this process."""
    return _run


@pytest.fixture(scope="session")
def shell() -> Cli:
    """Run a command line in a separate process."""

    def run(*args: object, **options: object) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "priorkit", *map(str, args)],
            capture_output=True, text=True, timeout=120, check=False, **options,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    return run


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


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> SmallArtifacts:
    """One small artifact of each kind, each made by its step."""
    root = tmp_path_factory.mktemp("artifacts")

    def make(step: str, *args: object) -> Path:
        return _made(_run(step, *args, "--out", root / step))

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
