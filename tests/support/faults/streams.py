"""Standard streams that are closed, full, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.faults.kills import Site, Undisturbed


def _close(number: int) -> None:
    """As a shell's ``>&-``: Python then has no such stream."""
    os.close(number)
    setattr(sys, "stdout" if number == 1 else "stderr", None)


def _full(number: int) -> None:
    file = os.open("/dev/full", os.O_WRONLY)
    os.dup2(file, number)
    os.close(file)


def _no_reader(number: int) -> None:
    """As ``| head -c 1`` once head has gone."""
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, number)
    os.close(writing)


@dataclass(frozen=True)
class State:
    """What is done to the streams.

    Attributes:
        shell: the same in a shell, around ``{}``.
        code: the exit code of a command that otherwise succeeds.
        apply: what does it in a child.
    """

    shell: str
    code: int
    apply: Callable[[], None]


def _each(*actions: tuple[Callable[[int], None], int]) -> Callable[[], None]:
    def apply() -> None:
        for action, number in actions:
            action(number)

    return apply


STATES: dict[str, State] = {
    "stdout closed": State("{} >&-", 4, _each((_close, 1))),
    "stdout full": State("{} >/dev/full", 4, _each((_full, 1))),
    "stdout's reader gone": State("{{ sleep 0.2; {}; }} | true", 0, _each((_no_reader, 1))),
    "stderr closed": State("{} 2>&-", 0, _each((_close, 2))),
    "stderr full": State("{} 2>/dev/full", 0, _each((_full, 2))),
    "stderr's reader gone": State("{{ sleep 0.2; {}; }} 2>&1 >/dev/null | true", 0, _each((_no_reader, 2))),
    "both closed": State("{} >&- 2>&-", 4, _each((_close, 1), (_close, 2))),
    "both full": State("{} >/dev/full 2>&1", 4, _each((_full, 1), (_full, 2))),
    "both readers gone": State("{{ sleep 0.2; {}; }} 2>&1 | true", 0, _each((_no_reader, 1), (_no_reader, 2))),
}  # fmt: skip


@dataclass(frozen=True)
class Stream:
    """A command with broken streams.

    Attributes:
        state: one of :data:`STATES`.
        wrong: what is wrong; empty where nothing is.
    """

    state: str
    wrong: str


def broken_streams(site: Site, whole: Undisturbed, states: Sequence[str]) -> Iterator[Stream]:
    """Run a step with broken streams: it makes its artifact in all cases."""
    for name in states:
        site.clear()
        ended = site.run(streams=STATES[name].apply)
        wrong = ""
        if ended.code != STATES[name].code:
            wrong = f"exit {ended.code}, not {STATES[name].code}: {ended.err[-2000:]}"
        elif "Traceback" in ended.err:
            wrong = ended.err[-2000:]
        elif site.left_over():
            wrong = f"left over: {', '.join(site.left_over())}"
        elif site.content() != whole.content:
            wrong = "other bytes"
        yield Stream(name, wrong)


def in_a_shell(words: Sequence[object], states: Sequence[str], folder: Path) -> Iterator[Stream]:
    """Run a command that prints a result in a real shell with broken streams."""
    command = " ".join(f"'{word}'" for word in (sys.executable, "-m", "priorkit", *words))
    for name in states:
        state = STATES[name]
        script = state.shell.format(command)
        if "|" in script:
            script += "; exit ${PIPESTATUS[0]}"
        done = subprocess.run(
            ["bash", "-c", script], capture_output=True, text=True, check=False, cwd=folder, timeout=120
        )
        wrong = "" if done.returncode == state.code else f"exit {done.returncode}, not {state.code}"
        if "Traceback" in done.stderr or "Exception ignored" in done.stderr:
            wrong = f"{wrong} {done.stderr[-2000:]}"
        yield Stream(name, wrong)
