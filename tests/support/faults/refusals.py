"""Malformed inputs given to the steps: refused in words that name the file, or accepted, never a traceback."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.support.faults.inputs import Slot
from tests.support.faults.malformed import malformed
from tests.support.small_artifacts import Result, run_in_process

LIMIT = 120
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Trial:
    """A command on a malformed input.

    Attributes:
        slot: which input of which step.
        mutation: what was done to it.
        check: how ``--check`` ended.
        run: how the run ended.
        wrong: what is wrong; empty where nothing is.
        path: the malformed file, until the next trial.
    """

    slot: Slot
    mutation: str
    check: Result
    run: Result
    wrong: str
    path: Path


class _Hangs(BaseException):
    pass


@contextlib.contextmanager
def _limited(seconds: int) -> Generator[None, None, None]:
    def stop(*_: object) -> NoReturn:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _run(*words: object) -> Result:
    """How a command ends; 1 with the traceback for a bug, 1 and 'hangs' where it does not end."""
    try:
        with _limited(LIMIT):
            return run_in_process(*words)
    except _Hangs:
        return Result(1, "", "hangs")
    except BaseException:
        return Result(1, "", traceback.format_exc())


def try_malformed(slots: Sequence[Slot], count: int, random_: random.Random, folder: Path) -> Iterator[Trial]:
    """Damage the files of all slots in turn, and give each to ``--check`` and to the run."""
    for number in range(count):
        slot = slots[number % len(slots)]
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        given = folder / slot.given.name
        if slot.given.is_dir():
            shutil.copytree(slot.given, given)
        else:
            shutil.copy(slot.given, given)
        path = given / slot.target if slot.target else given
        bad = malformed(slot.format, path.read_bytes(), random_)
        path.write_bytes(bad.content)
        results = folder / "results"
        results.mkdir()
        command = (*slot.words(given), "--out", results / "out")
        check, run = _run(*command, "--check"), _run(*command)
        left = sorted(item.name for item in results.iterdir())
        yield Trial(slot, bad.mutation, check, run, _wrong(slot, path, check, run, left), path)


def _wrong(slot: Slot, path: Path, check: Result, run: Result, left: list[str]) -> str:
    # Weights that are no numbers are the guard's: exit code 5.
    codes = (0, 2, 3, 4, 5) if slot.format == "safetensors" else (0, 2, 3, 4)
    for what, result in (("--check", check), ("the run", run)):
        if result.code not in codes:
            return f"{what} ends with {result.code}"
        if result.code in (2, 3) and path.name not in result.err and str(path.parent) not in result.err:
            return f"{what} does not name the file"
    if check.code not in (0, run.code):
        return f"--check ends with {check.code}, the run with {run.code}"
    if run.code not in (0, 5) and left:
        return f"left over: {', '.join(left)}"
    return ""
