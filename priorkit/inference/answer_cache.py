"""Answers stored while a run lasts, so that a killed run resumes and several processes share one benchmark.

Items are grouped into batches that depend on the items and the settings only. Each process appends the results of
a batch to its own file as one line; after a kill, complete lines are kept. Batches are assigned to processes by
number, so every batch has the same rows, and the same rounding, for any number of processes and interruptions.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.json_text import parse_json
from priorkit.core.process import runtime
from priorkit.core.process.progress import progress_bar

logger = logging.getLogger(__name__)


class AnswerCache:
    """The stored answers to one benchmark.

    Args:
        folder: where the files are; shared by all processes.
        name: of the benchmark.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.stem = hashlib.sha256(name.encode()).hexdigest()[:16]

    def get_or_compute(
        self,
        batches: Sequence[Sequence[int]],
        compute: Callable[[Sequence[int]], Sequence[Any]],
        title: str,
        key: str = "",
    ) -> list[Any]:
        """Results of all units, in order.

        Args:
            batches: numbers of units, each in exactly one batch.
            compute: gives a batch's results, one per unit, as JSON values.
            title: label of the progress bar.
            key: what else the results depend on; results stored under another key are ignored.
        """
        digest = hashlib.sha256(json.dumps([key, [list(batch) for batch in batches]]).encode()).hexdigest()
        rank, world = runtime.rank(), runtime.world_size()
        path = self.folder / f"{self.stem}.{rank}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        _truncate_partial_line(path)
        done = self._read(digest)
        units = sum(map(len, batches))
        missing = [number for number in range(len(batches)) if number not in done and number % world == rank]
        if done:
            answered = sum(len(batches[number]) for number in done)
            logger.info(f"  {title}: {answered} of {units} already answered")
        remaining = sum(len(batches[number]) for number in missing)
        with (
            path.open("a", encoding="utf-8") as stream,
            progress_bar(title, remaining, unit="items") as bar,
        ):
            for number in missing:
                results = list(compute(batches[number]))
                done[number] = results
                stream.write(json.dumps({"plan": digest, "batch": number, "results": results}) + "\n")
                stream.flush()
                bar.advance(len(batches[number]))
        if world > 1:
            from priorkit.core.process import distributed

            distributed.barrier()
            done = self._read(digest)
        ordered: list[Any] = [None] * units
        for number, batch in enumerate(batches):
            for unit, result in zip(batch, done[number], strict=True):
                ordered[unit] = result
        return ordered

    def _read(self, digest: str) -> dict[int, list[Any]]:
        """Complete lines of all processes' files, by batch number."""
        results: dict[int, list[Any]] = {}
        for path in sorted(self.folder.glob(f"{self.stem}.*.jsonl")):
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                entry = parse_json(line)
                if entry["plan"] == digest:
                    results[int(entry["batch"])] = entry["results"]
        return results


def _truncate_partial_line(path: Path) -> None:
    """Remove the incomplete last line that a kill leaves."""
    if path.is_file():
        with path.open("rb+") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
