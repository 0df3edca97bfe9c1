"""A cache of a model's answers on disk, so that a killed run resumes and several processes share the work.

Requests are cut into batches that depend only on the requests and the settings. Each process appends the
results of a batch as one line to its own file; after a kill all complete lines are kept. Batches are assigned
by number, so that every batch has the same rows, and the same rounding, whatever the number of processes and
however often the run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from priorkit.core import runtime
from priorkit.core.console import console


class AnswerCache:
    """The cached answers to one set of requests, such as a benchmark.

    Args:
        folder: folder of the cache files, shared by all processes.
        name: name of the set.
        wait: a barrier: returns once all processes have called it.
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
        """Results of all requests, in order; computes those that are not cached.

        Args:
            batches: numbers of requests, each in exactly one batch.
            answer: computes a batch's results, one JSON value per request.
            title: title of the progress bar.
            key: whatever else the results depend on; results cached under another key are ignored.
        """
        plan = hashlib.sha256(json.dumps([key, [list(batch) for batch in batches]]).encode()).hexdigest()
        rank, world = runtime.rank(), runtime.world_size()
        path = self.folder / f"{self.stem}.{rank}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        _drop_incomplete_line(path)
        done = self._read(plan)
        requests = sum(map(len, batches))
        missing = [place for place in range(len(batches)) if place not in done and place % world == rank]
        if done:
            console.say(
                f"  {title}: {sum(len(batches[place]) for place in done)} of {requests} answered already"
            )
        share = sum(len(batches[place]) for place in missing)
        with path.open("a", encoding="utf-8") as stream, console.progress(title, share, unit="items") as bar:
            for place in missing:
                done[place] = list(answer(batches[place]))
                stream.write(json.dumps({"plan": plan, "batch": place, "results": done[place]}) + "\n")
                stream.flush()
                bar.advance(len(batches[place]))
        if world > 1:
            self.wait()
            done = self._read(plan)
        results: list[Any] = [None] * requests
        for place, batch in enumerate(batches):
            for request, result in zip(batch, done[place], strict=True):
                results[request] = result
        return results

    def _read(self, plan: str) -> dict[int, list[Any]]:
        """Results by batch, from the complete lines of all processes' files; a line cut off by a kill is skipped."""
        results: dict[int, list[Any]] = {}
        for path in sorted(self.folder.glob(f"{self.stem}.*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                entry = json.loads(line)
                if entry["plan"] == plan:
                    results[int(entry["batch"])] = entry["results"]
        return results


def _drop_incomplete_line(path: Path) -> None:
    """Remove a line that a kill cut off, so that the next one starts on a fresh line."""
    if path.is_file():
        with path.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
