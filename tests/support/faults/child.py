"""Commands in forked children, which have torch imported already, with a fault injected into them."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Setup = Callable[[], object]


def import_libraries() -> None:
    """Import what the steps compute with, so that children need not."""
    import datasets
    import peft
    import pyarrow
    import timm
    import torch
    import transformers

    assert all((datasets, peft, pyarrow, timm, torch, transformers))


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; minus the signal's number where it was killed.
        out: what it printed on standard output.
        err: what it printed on standard error.
        seconds: how long it ran.
        orphans: processes it started that are still there.
    """

    code: int
    out: str
    err: str
    seconds: float
    orphans: int = 0


def run_in_child(
    words: Sequence[object],
    scratch: Path,
    setup: Setup | None = None,
    kill_after: float | None = None,
    streams: Setup | None = None,
    limit: float = 120,
) -> Ended:
    """Run a command line in a forked child.

    Args:
        words: the command line.
        scratch: an existing folder for the child's output and temporary files.
        setup: called in the child before the command.
        kill_after: seconds after which it is killed.
        streams: called in the child once its standard streams go to files, to break them.
        limit: seconds after which a child counts as hanging.

    Raises:
        TimeoutError: it hangs.
    """
    for name in ("out", "err"):
        (scratch / name).write_bytes(b"")
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(words, scratch, setup, streams)
    deadline = begun + (limit if kill_after is None else kill_after)
    while (status := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() >= deadline:
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)
            if kill_after is None:
                raise TimeoutError(f"hangs: {' '.join(map(str, words))}")
            break
        time.sleep(0.002)
    out, err = ((scratch / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
    return Ended(
        os.waitstatus_to_exitcode(status[1]), out, err, time.monotonic() - begun, _wait_for_orphans(pid)
    )


def _child(words: Sequence[object], scratch: Path, setup: Setup | None, streams: Setup | None) -> None:
    """The child's life; it never returns."""
    code = 1
    try:
        os.setsid()
        temporary = scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(temporary)
        import tempfile

        tempfile.tempdir = None
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(scratch / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, number)
            os.close(file)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        if streams is not None:
            streams()
        if setup is not None:
            setup()
        from priorkit.cli import main, output

        output.open_standard_streams()
        code = main.run([str(word) for word in words])
        output.flush_standard_streams()
    except BaseException:
        with open(scratch / "err", "a", encoding="utf-8") as stream:  # noqa: PTH123 - Path may be patched
            traceback.print_exc(file=stream)
    finally:
        os._exit(code)


def _wait_for_orphans(session: int, seconds: float = 10) -> int:
    """The number of processes of a child's session that do not end although the child has."""
    deadline = time.monotonic() + seconds
    while True:
        left = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            left += int(fields[3]) == session and fields[0] != "Z"
        if left == 0 or time.monotonic() > deadline:
            return left
        time.sleep(0.05)
