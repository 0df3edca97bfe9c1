"""Rescoring an evaluation's samples without a model: other parser, other reading, other groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError, Problems
from priorkit.data.results.evaluation_files import SAMPLES, read_document, read_samples
from priorkit.evaluation.benchmarks.discovery import BenchmarkSource
from priorkit.evaluation.benchmarks.items_io import predicted
from priorkit.evaluation.presets.loading import preset, preset_names, suite, suite_names
from priorkit.evaluation.presets.schema import PresetScoring
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.choice import LETTERS
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.registry import TASKS, task_named


@dataclass(frozen=True)
class StoredBenchmark:
    """One benchmark of an evaluation as it was answered.

    Attributes:
        name: the benchmark.
        task: its task type.
        mode: how it was asked; None for predictions.
        entry: its entry in ``results.json``.
        items: questions and truth.
        answers: what was answered.
        scoring: how its preset counted answers; None for a table of the user's own.
    """

    name: str
    task: Task
    mode: AnswerMode | None
    entry: Mapping[str, Any]
    items: Sequence[Item]
    answers: Sequence[ModelAnswer]
    scoring: PresetScoring | None


def read_origin(folder: Path) -> dict[str, Any]:
    """What ``results.json`` says of the model that answered, and of how it was asked."""
    document = read_document(folder)
    asked = {"asked": document["asked"]} if "asked" in document else {}
    return {"model": document.get("model"), **asked}


def read_suites(folder: Path) -> dict[str, Mapping[str, Sequence[str]]]:
    """The suites whose means ``results.json`` holds: by name, the benchmarks of each ability group."""
    document = read_document(folder)
    suites: dict[str, Mapping[str, Sequence[str]]] = {}
    for name, content in document.get("suites", {}).items():
        groups = content.get("members") or (suite(name).groups if name in suite_names() else {})
        members = {member for names in groups.values() for member in names}
        if members and members <= set(document["benchmarks"]):
            suites[name] = groups
    return suites


def read_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The benchmarks' entries of ``results.json``.

    Raises:
        InputError: it is missing or not of the form that `evaluate` writes.
    """
    return {str(name): dict(entry) for name, entry in read_document(folder)["benchmarks"].items()}


def check_versions(
    entries: Mapping[str, Mapping[str, Any]], sources: Sequence[BenchmarkSource], where: str
) -> None:
    """Refuse results of another version of a benchmark.

    Args:
        entries: the benchmarks' entries.
        sources: the benchmarks as they are now, where they were given.
        where: the evaluation, for errors.

    Raises:
        InputError: naming every benchmark that differs, and those given that were not evaluated.
    """
    problems = Problems(InputError)
    for name, entry in entries.items():
        if entry.get("version") and name in preset_names() and preset(name).version != entry["version"]:
            problems.add(
                f"results of version {entry['version']} of '{name}', which now is version {preset(name).version}",
                where=where,
                hint="ask the model again",
            )
        task = TASKS.get(str(entry.get("task")))
        if task is not None and not task.rescorable:
            problems.add(f"'{name}': the samples of '{task.name}' do not hold what is scored", where=where)
    for source in sources:
        if source.name not in entries:
            problems.add(f"no results of '{source.name}'", where=where)
        elif entries[source.name].get("digest") != source.digest():
            problems.add(
                f"'{source.name}' is not what was asked: the data or the preset has changed since",
                where=where,
                hint="ask the model again",
            )
    problems.raise_if_any()


def read_stored(folder: Path, columns: Sequence[str], limit: int = 0) -> list[StoredBenchmark]:
    """All benchmarks of an evaluation with items and answers.

    Args:
        folder: the evaluation.
        columns: groups to keep.
        limit: take no more than so many items of each; 0 for all.

    Raises:
        InputError: the files are not of the form that `evaluate` writes.
    """
    entries = read_entries(folder)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    path = folder / SAMPLES
    for number, row in read_samples(folder):
        if row.get("benchmark") not in entries:
            raise InputError("a sample of no benchmark in results.json", where=f"{path}:{number}")
        rows[str(row["benchmark"])].append(row)
    benchmarks: list[StoredBenchmark] = []
    for name, entry in entries.items():
        task = task_named(str(entry["task"]), str(folder))
        mode: AnswerMode | None = None if entry["by"] == "predictions" else entry["by"]
        lettered = entry.get("compared") == "letters"
        samples = rows[name][: limit or None]
        try:
            items = [predicted(task, row, [*columns, *row.get("groups", {})]) for row in samples]
            answers = [
                _answer(item, row, mode, lettered=lettered) for item, row in zip(items, samples, strict=True)
            ]
            if not task.from_predictions:
                _check_measured(task, items, answers)
        except (ValueError, TypeError) as error:
            raise InputError(
                f"not a sample of '{name}' that can be scored again: {error}", where=str(path)
            ) from None
        benchmarks.append(
            StoredBenchmark(name, task, mode, entry, items, answers, _scoring(name, entry, folder))
        )
    return benchmarks


def _scoring(name: str, entry: Mapping[str, Any], folder: Path) -> PresetScoring | None:
    """How the preset counted answers; results without it were made with a preset that ships with priorkit."""
    if "scoring" not in entry:
        return preset(name).scoring if entry.get("version") and name in preset_names() else None
    try:
        return PresetScoring(**entry["scoring"])
    except (ValueError, TypeError) as error:
        raise InputError(
            f"'{name}': not the scoring of a preset: {error}", where=str(folder / "results.json")
        ) from None


def _check_measured(task: Task, items: Sequence[Item], answers: Sequence[ModelAnswer]) -> None:
    """What a task compares must be there: a rank, or a log-likelihood and a length for every option.

    Raises:
        ValueError: it is not; with what is missing.
    """
    for item, answer in zip(items, answers, strict=True):
        if task.encoders_only:
            if answer.rank < 1:
                raise ValueError(f"'rank' of item {item.id} is missing")
        elif not len(answer.loglikelihoods) == len(answer.tokens) == len(item.choices):
            raise ValueError(
                f"'loglikelihoods' and 'tokens' of item {item.id} must have an entry for each of its "
                f"{len(item.choices)} texts"
            )


def _answer(item: Item, row: Mapping[str, Any], mode: AnswerMode | None, *, lettered: bool) -> ModelAnswer:
    compared = mode in ("likelihood", "similarity")
    values = tuple(float(value) for value in row.get("loglikelihoods", ()))
    tokens = row.get("tokens", ())
    options = tuple(LETTERS[: len(item.choices)]) if lettered else item.choices
    parsed = row.get("parsed")
    taken = parsed if compared and isinstance(parsed, int) else None
    turns: list[ModelAnswer] = []
    for by, text in enumerate(row.get("turns", ()), start=1):
        index = row["rotations"][by - 1] if compared else None
        turns.append(ModelAnswer(text, taken=None if index is None else (index - by) % len(item.choices)))
    return ModelAnswer(
        prediction=str(row.get("prediction", "")),
        prompt=str(row.get("prompt", "")),
        taken=taken,
        loglikelihoods=values,
        tokens=(tokens,) if isinstance(tokens, int) else tuple(tokens),
        options=options if values and item.choices else (),
        rank=float(row.get("rank", 0.0)),
        turns=tuple(turns),
    )
