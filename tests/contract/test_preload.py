"""``priorkit preload``: calls in the command end as they would by themselves, with the same bytes."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from priorkit.core import artifact

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="preload needs Linux")

PRIORKIT = f"{sys.executable} -m priorkit"

VERSION = f"priorkit {metadata.version('priorkit')}"

TRAINING = "--preset pocket-tiny --batch-size 4 --precision fp32 --device cpu"

CLIENT = "from priorkit.cli.preload_client import run_preloaded as run; print(run(['--version']))"


def preload(script: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "priorkit", "preload", "bash", "-c", script],
        cwd=folder, capture_output=True, text=True, timeout=200, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@pytest.mark.slow
def test_calls_end_as_they_would_by_themselves(artifacts, tmp_path: Path) -> None:
    by_itself = subprocess.run(
        shlex.split(f"{PRIORKIT} pretrain {artifacts.corpus} {TRAINING} --steps 3 --out llm"),
        cwd=tmp_path, check=True, capture_output=True, timeout=200,
    )  # fmt: skip
    assert by_itself.stdout == b"llm\n"
    script = f"""
    {sys.executable} -c "{CLIENT}"
    OTHER=1 {sys.executable} -c "{CLIENT}"
    (ulimit -c 0; ulimit -n 200; {sys.executable} -c "{CLIENT}")
    mkdir preloaded; cd preloaded
    echo {artifacts.corpus} | {PRIORKIT} pretrain - {TRAINING} --steps 3 --out llm
    umask 077
    {PRIORKIT} pretrain {artifacts.corpus} {TRAINING} --steps 2 --out private --quiet
    {PRIORKIT} pretrain nowhere --out x 2>&1; echo code $?
    {PRIORKIT} pretrain {artifacts.corpus} {TRAINING} --learning-rate 1e30 --out x 2>/dev/null; echo code $?
    {PRIORKIT} preload {PRIORKIT} --version
    {PRIORKIT} --version >&-; echo code $?
    exit 7
    """
    done = preload(script, tmp_path)
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:6] == [VERSION, "0", "None", "None", "llm", "private"], done.stderr
    assert "nowhere" in lines[6]
    assert [line for line in lines[6:] if line.startswith(("code", VERSION))] == [
        "code 3", "code 5", VERSION, "code 4",
    ]  # fmt: skip
    made = tmp_path / "preloaded" / "llm"
    assert artifact.open_artifact(made).digest == artifact.open_artifact(tmp_path / "llm").digest
    assert (made / "model.safetensors").read_bytes() == (tmp_path / "llm" / "model.safetensors").read_bytes()
    assert (tmp_path / "preloaded" / "private" / "model.safetensors").stat().st_mode & 0o777 == 0o600


def children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]


def is_bash(process: int) -> bool:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")[0].endswith("bash")


@pytest.fixture
def training(artifacts, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A server, a call of it that trains until it is stopped, and the process that works for the call."""
    script = (
        f"{PRIORKIT} pretrain {artifacts.corpus} {TRAINING} --steps 1000000 --out llm & echo $! >client; "
        "wait $!; echo code $?; exit 3"
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "priorkit", "preload", "bash", "-c", script],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: [path for path in tmp_path.iterdir() if path.name.endswith(".partial")])
        client = int((tmp_path / "client").read_text())
        [worker] = [child for child in children(server.pid) if not is_bash(child)]
        yield server, client, worker
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGTERM, "code 130\n", "interrupted"), (signal.SIGKILL, "code 137\n", "")],
)
def test_stopping_a_call_stops_its_process(
    training: tuple[subprocess.Popen[str], int, int], number: int, code: str, words: str, tmp_path: Path
) -> None:
    server, client, worker = training
    os.kill(client, number)
    out, err = server.communicate(timeout=100)
    assert (server.returncode, out) == (3, code), err
    assert words in err
    assert not Path(f"/proc/{worker}").exists()
    assert not (tmp_path / "llm").exists()


@pytest.mark.slow
def test_calls_end_with_the_server(training: tuple[subprocess.Popen[str], int, int], tmp_path: Path) -> None:
    server, _, worker = training
    assert server.stdout is not None
    os.kill(server.pid, signal.SIGKILL)
    assert server.stdout.read() == "code 4\n"
    wait_for(lambda: not Path(f"/proc/{worker}").exists(), seconds=20)


def test_a_command_that_is_missing_is_refused(cli) -> None:
    found = cli("preload", "no-such-command")
    assert found.code == 2
    assert "no such command: 'no-such-command'" in found.err


def test_without_a_server_a_call_runs_by_itself(shell) -> None:
    found = shell("--version", env={**os.environ, "PRIORKIT_PRELOADED": "/nowhere/socket"})
    assert (found.code, found.out) == (0, f"{VERSION}\n")
