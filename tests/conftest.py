"""Small artifacts that many tests read, made once by the command line itself."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest
from hypothesis import settings

from tests.support.small_artifacts import Result, SmallArtifacts, make_small_artifacts, run_in_process

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

Cli = Callable[..., Result]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Features are kept in a folder of the tests, not in the user's cache."""
    os.environ["PRIORKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def cli() -> Cli:
    """Run a command line in this process."""
    return run_in_process


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


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> SmallArtifacts:
    """One small artifact of each kind, each made by its step."""
    return make_small_artifacts(tmp_path_factory.mktemp("artifacts"))
