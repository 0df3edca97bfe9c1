"""What has been answered so far, so that a run that was killed goes on and several processes can share.

A benchmark is cut into batches that depend on its items and the settings alone. Each process appends the
results of a batch to a file of its own as one line; after a kill the lines that are whole stay. Batches are
dealt out by number, so that every batch has the same rows, and the same rounding, whatever the number of
processes and however often the run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from priorkit.core import runtime
from priorkit.core.console import console


class Journal:
    """The answers to one benchmark.

    Args:
        folder: where the files are; all processes see the same one.
        name: of the benchmark.
        wait: returns once all processes have called it.
    """

    def __init__(self, folder: Path, name: str, wait: Callable[[], None] = lambda: None) -> None:
        self.wait = wait
        self.folder = folder
        self.stem = hashlib.sha256(name.encode()).hexdigest()[:16]

    def answered(
        self,
        batches: Sequence[Sequence[int]],
        answer: Callable[[Sequence[int]], Sequence[Any]],
        title: str,
        key: str = "",
    ) -> list[Any]:
        """Results of all units, in order.

        Args:
            batches: numbers of units, each in exactly one batch.
            answer: gives a batch's results, one per unit, as JSON values.
            title: of the progress.
            key: what else the results depend on; results kept under another key are dropped.
        """
        plan = hashlib.sha256(json.dumps([key, [list(own) for own in batches]]).encode()).hexdigest()
        rank, world = runtime.rank(), runtime.world_size()
        path = self.folder / f"{self.stem}.{rank}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        _drop_cut_line(path)
        done = self._read(plan)
        units = sum(map(len, batches))
        missing = [place for place in range(len(batches)) if place not in done and place % world == rank]
        if done:
            console.say(
                f"  {title}: {sum(len(batches[place]) for place in done)} of {units} answered already"
            )
        share = sum(len(batches[place]) for place in missing)
        with path.open("a", encoding="utf-8") as stream, console.progress(title, share, unit="items") as bar:
            for place in missing:
                results = list(answer(batches[place]))
                done[place] = results
                stream.write(json.dumps({"plan": plan, "batch": place, "results": results}) + "\n")
                stream.flush()
                bar.advance(len(batches[place]))
        if world > 1:
            self.wait()
            done = self._read(plan)
        found: list[Any] = [None] * units
        for place, batch in enumerate(batches):
            for unit, result in zip(batch, done[place], strict=True):
                found[unit] = result
        return found

    def _read(self, plan: str) -> dict[int, list[Any]]:
        """The whole lines of all processes' files; what a kill cut off is left out."""
        found: dict[int, list[Any]] = {}
        for path in sorted(self.folder.glob(f"{self.stem}.*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                entry = json.loads(line)
                if entry["plan"] == plan:
                    found[int(entry["batch"])] = entry["results"]
        return found


def _drop_cut_line(path: Path) -> None:
    """Remove what a kill left of a line, so that the next one begins on its own."""
    if path.is_file():
        with path.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
