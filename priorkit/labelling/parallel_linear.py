"""A linear labeller whose work several processes share: hashing words holds the interpreter's lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorkit.data.io.worker_processes import Result, Task, Workers, serve
from priorkit.labelling.linear import LinearLabeller, load_linear_labeller


@dataclass(frozen=True)
class _Shared(LinearLabeller):
    """The labeller with the processes that score for it.

    Attributes:
        folder: where it is stored.
        pool: the processes.
        count: their number.
    """

    folder: Path = Path()
    pool: Workers | None = None
    count: int = 1

    def score(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Scores as of the labeller itself: each text's depend on that text alone."""
        if self.pool is None or not texts:
            return super().score(texts)
        step = -(-len(texts) // self.count)
        tasks = [
            {"folder": str(self.folder.resolve()), "texts": list(texts[start : start + step])}
            for start in range(0, len(texts), step)
        ]
        parts = [np.array(own["scores"], dtype=np.float32) for own in self.pool.map(tasks)]
        return np.concatenate(parts)


@contextmanager
def shared(linear: LinearLabeller, folder: Path, workers: int) -> Iterator[LinearLabeller]:
    """A labeller that scores on several processes; itself where fewer than two are wanted.

    Args:
        linear: the labeller.
        folder: where it is stored.
        workers: number of processes.
    """
    if workers < 2:
        yield linear
        return
    held = {field.name: getattr(linear, field.name) for field in fields(linear)}
    with Workers("priorkit.labelling.parallel_linear", workers) as pool:
        yield _Shared(**held, folder=folder, pool=pool, count=workers)


_load_once = cache(load_linear_labeller)


def work(task: Task) -> Result:
    """Score the texts of a task; what a worker process does."""
    return {"scores": _load_once(Path(task["folder"])).score(task["texts"]).tolist()}


if __name__ == "__main__":
    serve(work)
