"""What a stress test found: how much of a benchmark a language model answers from its text once it was tuned on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.data.io.tables import write_table
from priorkit.data.results.evaluation_files import read_samples
from priorkit.scoring.statistics.intervals import bootstrap_difference, bootstrap_mean

logger = logging.getLogger(__name__)


class HasCluster(Protocol):
    """What is needed of an item."""

    @property
    def id(self) -> str | int:
        """Its id."""
        ...

    @property
    def cluster(self) -> str:
        """What identifies its image; empty without one."""
        ...


@dataclass(frozen=True)
class Shortcuts:
    """One benchmark.

    Attributes:
        ids: of the items.
        folds: ``[items]`` int64.
        before: ``[items]`` float64, scores before tuning.
        after: ``[items]`` float64, scores of the model tuned on the other folds.
        untuned: mean score before tuning, with its interval.
        tuned: mean score after.
        gain: after minus before.
        by_fold: mean score of each fold after tuning.
    """

    ids: list[str]
    folds: NDArray[np.int64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    untuned: Interval
    tuned: Interval
    gain: Interval
    by_fold: list[float]

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {
            "items": len(self.ids),
            "untuned": self.untuned.to_dict(),
            "tuned": self.tuned.to_dict(),
            "gain": self.gain.to_dict(),
            "by_fold": self.by_fold,
        }


def scores_of(folder: Path) -> dict[str, float]:
    """Scores of an evaluation by item; items without one are left out."""
    return {
        str(row["id"]): float(row["score"]) for _, row in read_samples(folder) if row["score"] is not None
    }


def summarise(
    items: Sequence[HasCluster],
    folds: Sequence[int],
    untuned: Mapping[str, float],
    tuned: Mapping[str, float],
    seed: int,
    resamples: int,
) -> Shortcuts:
    """Scores of the items that both models answered, with intervals that resample images.

    Args:
        items: of the benchmark.
        folds: the fold of each.
        untuned: scores before tuning, by id.
        tuned: scores after, by id.
        seed: of the resampling.
        resamples: number of bootstrap samples.

    Raises:
        InputError: no item was answered by both.
    """
    kept = [index for index, item in enumerate(items) if str(item.id) in untuned and str(item.id) in tuned]
    if not kept:
        raise InputError("no item was answered before and after tuning")
    ids = [str(items[index].id) for index in kept]
    before = np.array([untuned[name] for name in ids], dtype=np.float64)
    after = np.array([tuned[name] for name in ids], dtype=np.float64)
    numbers = np.array([folds[index] for index in kept], dtype=np.int64)
    clusters = [items[index].cluster or f"#{index}" for index in kept]
    return Shortcuts(
        ids,
        numbers,
        before,
        after,
        bootstrap_mean(before, seed=seed, clusters=clusters, resamples=resamples),
        bootstrap_mean(after, seed=seed, clusters=clusters, resamples=resamples),
        bootstrap_difference(after, before, seed=seed, clusters=clusters, resamples=resamples),
        [float(after[numbers == fold].mean()) for fold in sorted(set(numbers.tolist()))],
    )


def write_shortcuts(found: Mapping[str, Shortcuts], folder: Path) -> None:
    """Write ``table.parquet``, a row per item, and ``scores.safetensors``; print a line per benchmark."""
    from safetensors.numpy import save_file

    rows = [
        (name, *row)
        for name, part in found.items()
        for row in zip(part.ids, part.folds.tolist(), part.before.tolist(), part.after.tolist(), strict=True)
    ]
    columns = ("benchmark", "id", "fold", "untuned", "tuned")
    write_table(dict(zip(columns, zip(*rows, strict=True), strict=True)), folder / "table.parquet")
    tensors = {
        "fold": np.concatenate([part.folds for part in found.values()]),
        "untuned": np.concatenate([part.before for part in found.values()]),
        "tuned": np.concatenate([part.after for part in found.values()]),
    }
    save_file(tensors, folder / "scores.safetensors")
    for name, part in found.items():
        gain = part.gain
        logger.info(
            f"  {name}: {part.untuned.value:.4g} -> {part.tuned.value:.4g} from text alone, gain {gain.value:+.4g} "
            f"[{gain.low:+.4g}, {gain.high:+.4g}] ({len(part.ids)} items)"
        )
