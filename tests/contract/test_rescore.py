"""``priorkit evaluate --rescore``: an evaluation's files are enough to score it again, whatever model answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from priorkit.cli.main import run
from priorkit.evaluation.presets.loading import preset
from priorkit.evaluation.results.scored_benchmarks import (
    ScoredBenchmark,
    summarise,
    summarise_suites,
    write_results,
)
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.scoring.answers.boxes import Box


@dataclass(frozen=True)
class Made:
    """An evaluation and what is in it."""

    folder: Path
    results: dict[str, Any]


def made(
    folder: Path,
    benchmarks: Mapping[str, tuple[Sequence[Item], Sequence[ModelAnswer]]],
    groups: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Made:
    """An evaluation of presets, written as the step writes it, without a model."""
    done: list[ScoredBenchmark] = []
    for name, (items, answers) in benchmarks.items():
        built_in = preset(name)
        scored = TASKS[built_in.task].score(
            items, answers, ScoringOptions(strict=built_in.scoring.reading == "strict")
        )
        mode = TASKS[built_in.task].modes[0] if answers[0].loglikelihoods else "generation"
        done.append(
            ScoredBenchmark(
                name,
                TASKS[built_in.task],
                mode,
                "d",
                items,
                answers,
                scored,
                0,
                built_in.scoring,
                built_in.version,
            )
        )
    found = {built_in.name: summarise(built_in, group_by=(), seed=42, resamples=100) for built_in in done}
    about: dict[str, Any] = {"model": {"path": "m", "kind": "mllm", "digest": "m", "blind": True}}
    if groups:
        full = {built_in.name: built_in.scoring.full_score for built_in in done if built_in.scoring}
        about["suites"] = summarise_suites(groups, found, full)
    folder.mkdir()
    write_results(folder, done, {name: built_in.entry for name, built_in in found.items()}, about)
    return Made(folder, read(folder))


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def rescored(given: Made, out: Path, *more: str) -> dict[str, Any]:
    command = ["evaluate", "--rescore", str(given.folder), *more, "--resamples", "100", "--quiet"]
    assert run([*command, "--out", str(out)]) == 0
    return read(out)


def yes_no(answers: Sequence[str], **groups: str) -> tuple[list[Item], list[ModelAnswer]]:
    """Questions whose truth is yes and no in turn, about two images."""
    items = [
        Item(id=n, question="?", answer=("yes", "no")[n % 2], cluster=f"image {n // 2}", groups=groups)
        for n in range(len(answers))
    ]
    return items, [ModelAnswer(text, "?") for text in answers]


def test_the_presets_reading_and_headline_are_kept(tmp_path: Path) -> None:
    """By the official rule a lower-case denial is a yes, and the strict preset would lose its accuracy."""
    first = made(tmp_path / "e", {"vsr": yes_no(["Yes", "It isn't.", "Yes", "NO"])})
    assert first.results["benchmarks"]["vsr"]["metrics"]["accuracy"]["value"] == 1.0
    again = rescored(first, tmp_path / "again")["benchmarks"]["vsr"]
    assert again == first.results["benchmarks"]["vsr"]
    official = rescored(first, tmp_path / "official", "--reading", "official")["benchmarks"]["vsr"]
    assert official["metrics"]["accuracy"]["value"] == 0.5


def test_the_presets_cluster_is_kept(tmp_path: Path) -> None:
    """Questions are right or wrong by halves, so that resampling halves widens the interval."""
    items = [Item(id=n, question="?", answer="yes", groups={"image_id": str(n % 2)}) for n in range(16)]
    answers = [ModelAnswer(("yes", "no")[n % 2]) for n in range(16)]
    first = made(tmp_path / "e", {"pope-random": (items, answers)})
    again = rescored(first, tmp_path / "again")["benchmarks"]["pope-random"]
    assert again["metrics"] == first.results["benchmarks"]["pope-random"]["metrics"]
    assert (again["metrics"]["accuracy"]["low"], again["metrics"]["accuracy"]["high"]) == (0.0, 1.0)


def test_boxes_are_rescored_in_another_space(tmp_path: Path) -> None:
    """Pixels that were taken for shares are malformed; the size that reading them needs is in the samples."""
    items = [Item(id=n, question="?", box=Box(0, 0, 0.5, 0.5), image_size=(200, 100)) for n in range(4)]
    first = made(tmp_path / "e", {"refcoco-val": (items, [ModelAnswer("[0, 0, 100, 50]")] * 4)})
    assert first.results["benchmarks"]["refcoco-val"]["unparsed"] == 4
    again = rescored(first, tmp_path / "again", "--box-space", "pixels")["benchmarks"]["refcoco-val"]
    assert (again["unparsed"], again["metrics"]["mean_iou"]["value"]) == (0, 1.0)
    assert again["metrics"]["accuracy_at_0.9"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    document = first.results
    document["benchmarks"]["refcoco-val"]["scoring"]["box_space"] = "pixels"
    (first.folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    kept = rescored(first, tmp_path / "kept")["benchmarks"]["refcoco-val"]
    assert kept["metrics"] == again["metrics"]


def test_suites_with_their_full_scores_and_the_model_are_kept(tmp_path: Path) -> None:
    pairs = yes_no(["yes", "no", "yes", "yes"], category="count", pair="p")
    first = made(
        tmp_path / "e",
        {"mme": pairs, "pope-random": yes_no(["yes", "no"])},
        {"mine": {"general": ["mme"], "hallucination": ["pope-random"]}},
    )
    again = rescored(first, tmp_path / "again")
    assert again["suites"] == first.results["suites"]
    assert again["suites"]["mine"]["overall"]["value"] < 1
    assert again["model"] == first.results["model"]
    assert again["rescored"] == str(first.folder)


def measured() -> dict[str, tuple[list[Item], list[ModelAnswer]]]:
    """Answers to tasks that compare, and are never written."""
    return {
        "visdial": (
            [Item(id=n, question="?", choices=("red", "blue", "no"), answer=n % 3) for n in range(6)],
            [
                ModelAnswer("red", "?", 0, (-1.0, -3.0, -2.0 - n), (1, 2, 1), ("red", "blue", "no"))
                for n in range(6)
            ],
        ),
        "lambada": (
            [Item(id=n, question="a b", choices=("c",), answer=0) for n in range(6)],
            [ModelAnswer("c", "a b", 0, (-0.5 - n,), (1,), ("c",)) for n in range(6)],
        ),
    }


@pytest.mark.parametrize("name", ["visdial", "lambada"])
def test_likelihood_answers_are_rescored(tmp_path: Path, name: str) -> None:
    first = made(tmp_path / "e", {name: measured()[name]})
    again = rescored(first, tmp_path / "again")
    assert again["benchmarks"][name] == first.results["benchmarks"][name]
    twice = rescored(Made(tmp_path / "again", again), tmp_path / "twice")
    assert twice["benchmarks"][name] == again["benchmarks"][name]


def test_ranks_among_texts_are_rescored(tmp_path: Path) -> None:
    task = TASKS["retrieval"]
    items = [Item(id=n, text=f"star {n}") for n in range(4)]
    answers = [ModelAnswer("star 0", taken=0, rank=float(n + 1)) for n in range(4)]
    benchmark = ScoredBenchmark(
        "pairs", task, "similarity", "d", items, answers, task.score(items, answers, ScoringOptions()), 0
    )
    entry = summarise(benchmark, group_by=(), seed=42, resamples=100).entry
    (tmp_path / "e").mkdir()
    write_results(tmp_path / "e", [benchmark], {"pairs": entry}, {"model": None})
    again = rescored(Made(tmp_path / "e", {}), tmp_path / "again")
    assert again["benchmarks"]["pairs"] == entry


def test_samples_without_likelihoods_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = made(tmp_path / "e", {"visdial": measured()["visdial"]})
    file = first.folder / "samples.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    del rows[0]["loglikelihoods"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert run(["evaluate", "--rescore", str(first.folder), "--out", str(tmp_path / "no"), "--quiet"]) == 3
    assert "'loglikelihoods' and 'tokens' of item 0" in capsys.readouterr().err


def test_results_that_do_not_hold_their_scoring_take_the_kits(tmp_path: Path) -> None:
    first = made(tmp_path / "e", {"vsr": yes_no(["Yes", "It isn't."])})
    document = first.results
    del document["benchmarks"]["vsr"]["scoring"]
    (first.folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    again = rescored(first, tmp_path / "again")["benchmarks"]["vsr"]
    assert again["metrics"]["accuracy"]["value"] == 1.0
    document["benchmarks"]["vsr"]["scoring"] = {"reading": "loose"}
    (first.folder / "results.json").write_text(json.dumps(document), encoding="utf-8")
    assert run(["evaluate", "--rescore", str(first.folder), "--out", str(tmp_path / "no"), "--quiet"]) == 3
