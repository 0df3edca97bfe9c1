"""The files of an evaluation: ``results.json``, ``samples.jsonl``, ``scores.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.evals.items import Answer, Item
from priorkit.evals.reading import image_key
from priorkit.evals.statistics import as_json, finite, measure
from priorkit.evals.tasks.task import Scored, Task, Way


@dataclass(frozen=True)
class Evaluated:
    """One benchmark with the model's answers and their scores."""

    name: str
    task: Task
    way: Way | None
    digest: str
    items: Sequence[Item]
    answers: Sequence[Answer]
    scored: Scored
    rejected: int


def summarise(done: Evaluated, *, group_by: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    """A benchmark's entry in ``results.json``: metrics with intervals, overall and per group.

    ``macro_accuracy``, the unweighted mean over the values of ``sub_task``, stands beside the
    question-weighted ``accuracy`` where the benchmark has such a column (MLE-Bench in lmms-eval).
    """
    parts = [item.groups.get("sub_task", "") for item in done.items]
    strata = parts if all(parts) and len(set(parts)) > 1 and "accuracy" in _names(done.scored) else None
    entry: dict[str, Any] = {
        "task": done.task.name,
        "by": done.way or "predictions",
        **_part(done, range(len(done.items)), seed, resamples, strata),
        "rejected": done.rejected,
        "digest": done.digest,
    }
    groups: dict[str, dict[str, Any]] = {}
    for column in group_by:
        values = sorted({item.groups[column] for item in done.items if column in item.groups})
        for value in values:
            rows = [place for place, item in enumerate(done.items) if item.groups.get(column) == value]
            groups.setdefault(column, {})[value] = _part(done, rows, seed, resamples, None)
    return {**entry, "groups": groups} if groups else entry


def _names(scored: Scored) -> list[str]:
    return list(scored.metrics(scored.counts.sum(0, keepdims=True)))


def _part(
    done: Evaluated, rows: Sequence[int], seed: int, resamples: int, strata: Sequence[str] | None
) -> dict[str, Any]:
    images = [done.items[row].image for row in rows]
    clusters = [
        str(row) if image is None else image_key(image) for row, image in zip(rows, images, strict=True)
    ]
    found = measure(
        done.scored.counts[list(rows)],
        done.scored.metrics,
        seed=seed,
        resamples=resamples,
        clusters=clusters,
        strata=strata,
    )
    return {
        "metrics": as_json(found),
        "items": len(rows),
        "unparsed": sum(done.scored.unparsed[row] for row in rows),
    }


def write_results(
    folder: Path, done: Sequence[Evaluated], entries: dict[str, Any], about: dict[str, Any]
) -> None:
    """Write all three files.

    Args:
        folder: where to.
        done: the benchmarks in order.
        entries: what :func:`summarise` gave for each, by name.
        about: further entries of ``results.json``: the model with its digest, how it was asked.
    """
    document = {**about, "benchmarks": entries}
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "samples.jsonl").open("w", encoding="utf-8") as stream:
        for benchmark in done:
            for place in range(len(benchmark.items)):
                stream.write(json.dumps(sample(benchmark, place), ensure_ascii=False, allow_nan=False) + "\n")
    _write_scores(folder / "scores.safetensors", done)


def sample(done: Evaluated, place: int) -> dict[str, Any]:
    """One line of ``samples.jsonl``; its keys fit ``--predictions``, so that it can be scored anew."""
    item, answer, scored = done.items[place], done.answers[place], done.scored
    return {
        "id": item.id,
        "benchmark": done.name,
        "prompt": answer.prompt,
        "prediction": answer.prediction,
        "parsed": scored.parsed[place],
        "score": finite(scored.scores[place]),
        **item.truth(),
        **{name: values[place] for name, values in scored.extra.items()},
        "groups": dict(item.groups),
    }


def _write_scores(path: Path, done: Sequence[Evaluated]) -> None:
    """``NAME.score`` float64 ``[items]``; ``NAME.loglikelihood`` float64, the options of all items in a
    row, with ``NAME.options`` int64 ``[items]``, their number per item."""
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {}
    for benchmark in done:
        tensors[f"{benchmark.name}.score"] = np.array(benchmark.scored.scores, dtype=np.float64)
        if all(answer.loglikelihoods for answer in benchmark.answers):
            values = [value for answer in benchmark.answers for value in answer.loglikelihoods]
            tensors[f"{benchmark.name}.loglikelihood"] = np.array(values, dtype=np.float64)
            tensors[f"{benchmark.name}.options"] = np.array(
                [len(answer.loglikelihoods) for answer in benchmark.answers], dtype=np.int64
            )
    save_file(tensors, path)
