"""Commands that are killed at a place of one's choice, and run again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from priorkit.core import artifact, lifecycle
from priorkit.training.engine import checkpoint, loop


class Killer:
    """Lets a function work a number of times, then kills the process in its midst."""

    def __init__(self, work: Callable[..., Any], times: int) -> None:
        self._work, self._left = work, times

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._work(*args, **options)


PLACES: dict[str, tuple[Any, str]] = {
    "a step": (loop, "forward_backward"),
    "saving the state": (checkpoint, "save_file"),
    "moving the state into place": (checkpoint, "replace_durably"),
    "a write to the disk": (os, "fsync"),
    "hashing the result": (artifact, "hash_files"),
    "moving a file or folder": (Path, "replace"),
    "cutting the metrics": (os, "truncate"),
    "removing the state": (lifecycle, "_bare"),
    "renaming the artifact": (lifecycle, "move_into_place"),
}


class Runs:
    """One command, run whole or killed, in processes that have torch imported already."""

    def __init__(self, cli: Callable[..., Any], command: list[object]) -> None:
        self._cli, self._command = cli, command

    def run(self, out: Path) -> Any:
        """Run in this process."""
        return self._cli(*self._command, "--out", out)

    def whole(self, out: Path) -> artifact.Artifact:
        """Run to the end in this process."""
        found = self.run(out)
        assert found.code == 0, found.err
        return artifact.open_artifact(out)

    def killed(self, out: Path, place: str, times: int) -> None:
        """Run in a process of its own that is killed at a place."""
        owner, name = PLACES[place]

        def child() -> None:
            setattr(owner, name, Killer(getattr(owner, name), times))
            if owner is Path:
                Path.replace = lambda self, target, kill=Path.replace: kill(self, target)  # type: ignore[method-assign]
            self._cli(*self._command, "--out", out)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{place} {times}: not reached"
        assert not out.exists() or artifact.is_artifact(out)
