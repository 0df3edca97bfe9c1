"""The metrics file: a JSON line per step, without times, so that reruns give the same bytes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.json_text import parse_json
from priorkit.core.process.runtime import rank

METRICS = "metrics.jsonl"


class MetricsLog:
    """The metrics of every step.

    Args:
        path: the file; only the first process writes it.
        size: its length in bytes at the checkpoint that the run resumes from; the rest is truncated.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._losses: list[tuple[float, float]] = []
        self._lines: list[str] = []
        if rank() == 0 and path.is_file():
            # Truncated in place: rewriting would lose the file if the run were killed meanwhile.
            os.truncate(path, size)
            for line in path.read_bytes().splitlines():
                row = parse_json(line)
                self._losses.append((row["loss"], row["weight"]))

    def write(self, row: dict[str, Any], weight: int) -> None:
        """Log a step; ``weight`` is its number of tokens or samples."""
        self._losses.append((row["loss"], weight))
        if rank() == 0:
            self._lines.append(json.dumps({**row, "weight": weight}) + "\n")

    def flush(self) -> int:
        """Append the pending lines; returns the file's length in bytes."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(self._lines)
        self._lines.clear()
        return self._path.stat().st_size

    def final_loss(self, steps: int) -> float:
        """The mean loss over the last tenth of the steps, weighted by tokens or samples."""
        return _final_mean(self._losses, steps)

    def last(self, steps: int) -> list[float]:
        """The losses of the last steps; empty where there were fewer."""
        return [loss for loss, _ in self._losses[-steps:]] if len(self._losses) >= steps else []


def final_means(path: Path, names: Iterable[str], steps: int) -> dict[str, float]:
    """The means of logged metrics over the last tenth of the steps, weighted by tokens or samples.

    Args:
        path: the metrics file of a finished run.
        names: the metrics; each has a value in every line.
        steps: of the run.
    """
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return {name: _final_mean([(row[name], row["weight"]) for row in rows], steps) for name in names}


def _final_mean(values: Sequence[tuple[float, float]], steps: int) -> float:
    """The weighted mean over the last tenth of the steps."""
    tail = values[-max(1, steps // 10) :]
    weight = sum(w for _, w in tail)
    return sum(value * w for value, w in tail) / weight if weight else math.nan
