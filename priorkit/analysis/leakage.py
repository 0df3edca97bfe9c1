"""Multimodal gain and leakage of benchmarks: what images add to a model's score, and what it answers without them.

Source: MMStar (arXiv 2403.20330, section 4): gain is the score with images minus that without; leakage is the score
without images minus that of the language model that the model was built on, and 0 where that is negative. A model
that has met a benchmark's questions in multimodal training answers them without the image better than its base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.data.results.evaluation_files import read_samples, shared_benchmarks
from priorkit.scoring.statistics.intervals import bootstrap_difference

Samples = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Leakage:
    """One benchmark.

    Attributes:
        items: how many items all evaluations scored.
        unpaired: how many items of the first are missing in another, or have no score in one.
        seen: mean score with images.
        blind: mean score without.
        base: mean score of the language model that the model was built on; None where it was not given.
        gain: seen minus blind, with its interval.
        difference: blind minus base, with its interval; None without a base.
        leakage: the difference, or 0 where it is negative; None without a base.
        answered_blind: share of the items right with images that are right without, too.
    """

    items: int
    unpaired: int
    seen: float
    blind: float
    base: float | None
    gain: Interval
    difference: Interval | None
    leakage: float | None
    answered_blind: float | None

    def to_json(self) -> dict[str, Any]:
        """As ``leakage.json`` holds it."""
        return {
            **asdict(self),
            "gain": self.gain.to_dict(),
            "difference": self.difference.to_dict() if self.difference else None,
        }


def leakage_of(
    seen: Path, blind: Path, base: Path | None, seed: int = 42, resamples: int = 1000
) -> dict[str, Leakage]:
    """Gain and leakage of all benchmarks that the evaluations share, each on the items of all of them.

    Args:
        seen: folder of an evaluation with images.
        blind: of the same model's without.
        base: of its base language model's.
        seed: of the resampling.
        resamples: number of bootstrap samples; images are resampled together.

    Raises:
        InputError: they share no benchmark or no scored item.
    """
    others = [blind, *([base] if base else [])]
    ours = _by_benchmark(seen)
    theirs = [_by_benchmark(other) for other in others]
    found: dict[str, Leakage] = {}
    for name, samples in ours.items():
        named = [
            dict(shared_benchmarks([name], list(other), str(where))).get(name, "")
            for other, where in zip(theirs, others, strict=True)
            if name in other or (len(ours) == len(other) == 1)
        ]
        if len(named) == len(theirs):
            columns = [other[key] for other, key in zip(theirs, named, strict=True)]
            found[name] = _leakage(name, samples, columns, seed, resamples)
    if not found:
        raise InputError(f"no benchmark in common: {', '.join(ours)} here", where=", ".join(map(str, others)))
    return found


def _by_benchmark(folder: Path) -> dict[str, dict[str, Mapping[str, Any]]]:
    samples: dict[str, dict[str, Mapping[str, Any]]] = {}
    for _, row in read_samples(folder):
        samples.setdefault(str(row.get("benchmark")), {})[str(row.get("id"))] = row
    return samples


def _leakage(name: str, seen: Samples, others: Sequence[Samples], seed: int, resamples: int) -> Leakage:
    ids = [
        item
        for item, row in seen.items()
        if row.get("score") is not None
        and all(other.get(item, {}).get("score") is not None for other in others)
    ]
    if not ids:
        raise InputError(f"no item of '{name}' has a score in all evaluations", hint="are the ids the same?")
    columns = [np.array([float(rows[item]["score"]) for item in ids]) for rows in (seen, *others)]
    clusters = [str(seen[item].get("cluster") or f"#{item}") for item in ids]

    def difference(first: int, second: int) -> Interval:
        return bootstrap_difference(
            columns[first], columns[second], seed=seed, clusters=clusters, resamples=resamples
        )

    right = columns[0] > 0
    against = difference(1, 2) if len(others) > 1 else None
    return Leakage(
        items=len(ids),
        unpaired=len(seen) - len(ids),
        seen=float(columns[0].mean()),
        blind=float(columns[1].mean()),
        base=float(columns[2].mean()) if against else None,
        gain=difference(0, 1),
        difference=against,
        leakage=max(0.0, against.value) if against else None,
        answered_blind=float((columns[1][right] > 0).mean()) if right.any() else None,
    )


def write_leakage(found: Mapping[str, Leakage], path: Path) -> None:
    """Write it as JSON."""
    content = {name: benchmark.to_json() for name, benchmark in found.items()}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def lines_of_leakage(found: Mapping[str, Leakage]) -> list[str]:
    """A line per benchmark for people."""
    lines: list[str] = []
    for name, benchmark in found.items():
        gain = benchmark.gain
        line = f"{name}: gain {gain.value:+.4g} [{gain.low:+.4g}, {gain.high:+.4g}]"
        if benchmark.difference is not None and benchmark.leakage is not None:
            low, high = benchmark.difference.low, benchmark.difference.high
            line += f", leakage {benchmark.leakage:.4g} (without images minus base [{low:+.4g}, {high:+.4g}])"
        if benchmark.answered_blind is not None:
            line += f", {benchmark.answered_blind:.1%} of the right answers are right without the image"
        lines.append(f"{line}, {benchmark.items} items")
    return lines
