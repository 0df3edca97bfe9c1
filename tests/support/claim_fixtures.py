"""Evaluations for claims: rows of samples with the columns that claims select by, in artifacts with seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from priorkit.analysis.claims.reading import Claim
from priorkit.core.artifact import Artifact
from priorkit.data.io.tables import write_table
from tests.support.report_fixtures import Maker

ENTITIES = tuple(f"sign {number:02d}" for number in range(36))
PRIORS = dict(zip(ENTITIES, ["strong"] * 16 + ["weak"] * 12 + ["none"] * 8, strict=True))
SIZES = ("existence_0-30", "existence_30-60", "existence_60-100")

Probability = Callable[[str, Mapping[str, Any]], float]
"""From a label and an item's row to the probability that it is answered correctly."""


def item(benchmark: str, number: int) -> dict[str, Any]:
    """An item without its answer."""
    entity = ENTITIES[number % len(ENTITIES)]
    return {
        "id": f"{benchmark}-{number}",
        "benchmark": benchmark,
        "prompt": "<image>\nWhat is this?",
        "answer": ("yes", "no")[number % 2] if benchmark == "existence" else 0,
        "groups": {
            "entity": entity,
            "prior": PRIORS[entity],
            "sub_task": SIZES[number % 3],
            "center_distance": f"{(number * 7 % 100) / 100}",
        },
    }


def answered(row: Mapping[str, Any], correct: bool) -> dict[str, Any]:
    """The item with an answer."""
    answer = row["answer"]
    other = {"yes": "no", "no": "yes"}.get(str(answer), 1)
    parsed = answer if correct else other
    box = {"iou": 0.7 if correct else 0.2} if row["benchmark"] == "grounding" else {}
    return {**row, "prediction": str(parsed), "parsed": parsed, "score": float(correct), **box}


def evaluation(
    make: Maker,
    label: str,
    rows: Iterable[Mapping[str, Any]],
    inputs: Mapping[str, Path] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Artifact:
    """An evaluation artifact of these samples, with the metrics that follow from them."""
    folder = make.root / label
    folder.mkdir(parents=True)
    samples = list(rows)
    results: dict[str, Any] = {}
    for benchmark in dict.fromkeys(row["benchmark"] for row in samples):
        scores = [row["score"] for row in samples if row["benchmark"] == benchmark]
        mean = sum(scores) / len(scores)
        metric = "accuracy_at_0.5" if benchmark == "grounding" else "accuracy"
        results[benchmark] = {
            "metrics": {metric: {"value": mean, "low": mean, "high": mean}}, "items": len(scores), "unparsed": 0,
        }  # fmt: skip
    (folder / "results.json").write_text(json.dumps({"model": {}, "benchmarks": results}), encoding="utf-8")
    lines = "".join(f"{json.dumps(row)}\n" for row in samples)
    (folder / "samples.jsonl").write_text(lines, encoding="utf-8")
    return make.seal(label, "evaluation", "evaluate", inputs, settings=settings)


def ranks(make: Maker, name: str = "ranks") -> Artifact:
    """Rank-e scores: strong entities rank low."""
    folder = make.root / name
    folder.mkdir()
    mean_rank = [1.0 + number for number in range(len(ENTITIES))]
    write_table(
        {
            "entity": ENTITIES, "images": [1] * len(ENTITIES), "mean_rank": mean_rank,
            "percentile": mean_rank, "mean_log_rank": [math.log(rank) for rank in mean_rank],
            "mrr": mean_rank, "recall_at_1": mean_rank, "recall_at_5": mean_rank,
        },
        folder / "table.parquet",
    )  # fmt: skip
    return make.seal(name, "scores", "rank-e", metrics={"candidates": len(ENTITIES)})


def entities_table(make: Maker) -> Path:
    """A table of entities, as a world has it."""
    path = make.root / "entities.parquet"
    columns = {
        "entity": ENTITIES,
        "prior": [PRIORS[name] for name in ENTITIES],
        "in_text": [number % 3 > 0 for number in range(len(ENTITIES))],
        "in_instructions": [number % 5 > 0 for number in range(len(ENTITIES))],
    }
    write_table(columns, path)
    return path


def artifacts_of(
    make: Maker,
    claims: Sequence[Claim],
    probability: Probability,
    items: int = 180,
    seeds: Sequence[int] = (1, 2, 3),
    leave_out: Sequence[str] = (),
) -> dict[str, Artifact]:
    """An artifact for every label and seed that the claims need: ``LABEL@SEED`` -> artifact.

    Args:
        make: makes artifacts.
        claims: what needs them.
        probability: of a correct answer; each seed adds a deviation of its own of about 0.01.
        items: of every benchmark.
        seeds: the seeds.
        leave_out: labels for which none is made.
    """
    needed: dict[str, dict[str, None]] = {}
    sources: dict[str, str] = {}
    for claim in claims:
        gate = claim.stated.gate
        if gate is not None:
            needed.setdefault(gate.evaluation, {})[gate.benchmark] = None
        for term in claim.terms():
            needed.setdefault(term.label, {}).update(dict.fromkeys(term.benchmarks))
            sources[term.label] = term.source
    made: dict[str, Artifact] = {}
    for place, (label, benchmarks) in enumerate(needed.items()):
        if label in leave_out or not label:
            continue
        if sources.get(label) == "ranks":
            made[label] = ranks(make, label)
            continue
        for seed in seeds:
            generator = np.random.default_rng((seed, place))
            shift = 0.01 * generator.standard_normal()
            rows = [item(benchmark, number) for benchmark in benchmarks for number in range(items)]
            chances = [min(max(probability(label, row) + shift, 0.0), 1.0) for row in rows]
            correct = generator.random(len(rows)) < chances
            name = f"{label}@{seed}"
            made[name] = evaluation(
                make, name, map(answered, rows, correct.tolist()), settings={"seed": seed, "choices": "text"}
            )
    return made
