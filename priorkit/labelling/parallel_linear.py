"""A linear labeller that scores on several processes; hashing words holds the interpreter lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np

from priorkit.data.io.worker_processes import Result, Task, Workers, serve
from priorkit.data.text.segments import SegmentStore
from priorkit.labelling.base import SegmentScores
from priorkit.labelling.label import SegmentLabels, decision_thresholds, label_all
from priorkit.labelling.linear import LinearLabeller, load_linear_labeller
from priorkit.labelling.settings import LabelCorpusSettings


@dataclass(frozen=True)
class ParallelLinearLabeller(LinearLabeller):
    """A linear labeller with its worker processes.

    Attributes:
        folder: where the labeller is stored; the processes load it from there.
        pool: the processes.
        processes: their number.
    """

    folder: Path = Path()
    pool: Workers | None = None
    processes: int = 1

    def score(self, texts: Sequence[str]) -> SegmentScores:
        """Score segments; the scores are those of the labeller itself."""
        if self.pool is None or not texts:
            return super().score(texts)
        size = -(-len(texts) // self.processes)
        tasks = [
            {"folder": str(self.folder.resolve()), "texts": list(texts[start : start + size])}
            for start in range(0, len(texts), size)
        ]
        parts = [np.array(result["scores"], dtype=np.float32) for result in self.pool.map(tasks)]
        return SegmentScores(np.concatenate(parts), *np.zeros((2, len(texts)), dtype=np.bool_))


@contextmanager
def in_processes(linear: LinearLabeller, folder: Path, processes: int) -> Iterator[LinearLabeller]:
    """A labeller that scores on several processes; the given one for fewer than two.

    Args:
        linear: the labeller.
        folder: where it is stored.
        processes: their number.
    """
    if processes < 2:
        yield linear
        return
    state = {field.name: getattr(linear, field.name) for field in fields(linear)}
    with Workers("priorkit.labelling.parallel_linear", processes) as pool:
        yield ParallelLinearLabeller(**state, folder=folder, pool=pool, processes=processes)


def label_with_linear(
    settings: LabelCorpusSettings, folder: Path, store: SegmentStore, segments: int
) -> SegmentLabels:
    """Label all segments with the linear labeller of a folder, on ``--workers`` processes."""
    linear = load_linear_labeller(folder)
    thresholds = decision_thresholds(settings, linear.thresholds)
    with in_processes(linear, folder, settings.workers) as labeller:
        return label_all(labeller, store, segments, thresholds)


_load_once = cache(load_linear_labeller)


def work(task: Task) -> Result:
    """Score the texts of a task, in a worker process."""
    return {"scores": _load_once(Path(task["folder"])).score(task["texts"]).scores.tolist()}


if __name__ == "__main__":
    serve(work)
