"""Commands that are killed at a place of one's choice, and run again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from priorkit.core import artifact, lifecycle
from priorkit.training.engine import checkpoint, training_run


class Killer:
    """Lets a function work a number of times, then kills the process in its midst."""

    def __init__(
        self, work: Callable[..., Any], times: int, before: Callable[[], None] | None = None
    ) -> None:
        self._work, self._left, self._before = work, times, before

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            if self._before is not None:
                self._before()
            os.kill(os.getpid(), signal.SIGKILL)
        return self._work(*args, **options)


PLACES: dict[str, tuple[Any, str]] = {
    "a step": (training_run, "forward_backward"),
    "saving the state": (checkpoint, "save_file"),
    "moving the state into place": (checkpoint, "replace_durably"),
    "a write to the disk": (os, "fsync"),
    "hashing the result": (artifact, "hash_files"),
    "moving a file or folder": (Path, "replace"),
    "truncating the metrics": (os, "truncate"),
    "removing the state": (lifecycle, "_remove_state"),
    "renaming the artifact": (lifecycle, "move_into_place"),
}


def _completed_checkpoint() -> Callable[[], None]:
    """What waits until the checkpoint that this process is writing is complete."""
    writers: list[checkpoint.CheckpointWriter] = []
    save = checkpoint.CheckpointWriter.save

    def remembered(self: checkpoint.CheckpointWriter, *args: Any) -> None:
        writers.append(self)
        save(self, *args)

    checkpoint.CheckpointWriter.save = remembered
    return lambda: writers[-1].wait() if writers else None


class Runs:
    """One command, run to its end or killed, in processes that have torch imported already."""

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

    def killed(self, out: Path, place: str, times: int, *, written: bool = False) -> None:
        """Run in a separate process that is killed at a given place.

        Args:
            out: of the command.
            place: one of ``PLACES``.
            times: how often the place is passed before.
            written: whether the checkpoint that a background thread is writing is completed before the kill.
        """
        owner, name = PLACES[place]

        def child() -> None:
            before = _completed_checkpoint() if written else None
            setattr(owner, name, Killer(getattr(owner, name), times, before))
            if owner is Path:
                Path.replace = lambda self, target, kill=Path.replace: kill(self, target)  # type: ignore[method-assign]
            self._cli(*self._command, "--out", out)

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, f"{place} {times}: not reached"
        assert not out.exists() or artifact.is_artifact(out)
