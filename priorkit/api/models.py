"""Evaluating, diagnosing and merging models, with a folder for the result where none is named."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from priorkit.api.steps import step_function
from priorkit.core.artifact import Artifact
from priorkit.core.interval import Interval

if TYPE_CHECKING:
    import pandas

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class EvaluationResult:
    """Results of a model on benchmarks.

    Attributes:
        artifact: where they are stored.
        metrics: benchmark -> metric -> value with its 95 % confidence interval.
    """

    artifact: Artifact
    metrics: dict[str, dict[str, Interval]]

    @property
    def path(self) -> Path:
        """The artifact's directory."""
        return self.artifact.path

    def __fspath__(self) -> str:
        return str(self.path)

    def samples(self) -> pandas.DataFrame:
        """A row per item: prompt, prediction, parsed answer, score and more."""
        import pandas

        return pandas.read_json(self.path / "samples.jsonl", lines=True)


def evaluate(
    model: StrPath, *benchmarks: StrPath, out: StrPath | None = None, **options: Any
) -> EvaluationResult:
    """Evaluate a model on benchmarks: ``evaluate("tuned", "pope-random", limit=100)``.

    Args:
        model: a language model, multimodal model, encoder or adapter: an artifact, a directory or a hub id.
        *benchmarks: names of presets and suites, files, folders or artifacts.
        out: the directory to make; a temporary one, removed when Python exits, where not given.
        **options: the other options of ``priorkit.steps.evaluate``.

    Raises:
        PriorkitError: as the step does.
    """
    made = step_function("evaluate")(model, list(benchmarks), out=_out(out, "evaluation"), **options)
    content = json.loads((made.path / "results.json").read_text(encoding="utf-8"))
    metrics = {
        benchmark: {name: Interval.from_dict(value) for name, value in entry["metrics"].items()}
        for benchmark, entry in content["benchmarks"].items()
    }
    return EvaluationResult(made, metrics)


@dataclass(frozen=True)
class DiagnosisResult:
    """Why a multimodal model fails on entities.

    Attributes:
        artifact: where it is stored, with the names of each cause and what to run below ``remedies``.
        results: what ``results.json`` holds: verdicts counted, measures of all entities with intervals, remedies.
    """

    artifact: Artifact
    results: dict[str, Any]

    @property
    def path(self) -> Path:
        """The artifact's directory."""
        return self.artifact.path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def table(self) -> pandas.DataFrame:
        """A row per entity: verdict, probability, accuracy, and the evidence with its intervals."""
        import pandas

        return pandas.read_parquet(self.path / "table.parquet")


def diagnose(model: StrPath, images: StrPath, out: StrPath | None = None, **options: Any) -> DiagnosisResult:
    """Diagnose a multimodal model: ``diagnose("tuned", "birds/", facts="facts.jsonl").table``.

    Args:
        model: a multimodal model or an adapter on one: an artifact, a directory or a hub id.
        images: held-out entity images: a folder per entity, or a table.
        out: the directory to make; a temporary one, removed when Python exits, where not given.
        **options: the other options of ``priorkit.steps.diagnose``.

    Raises:
        PriorkitError: as the step does.
    """
    made = step_function("diagnose")(model, images, out=_out(out, "diagnosis"), **options)
    return DiagnosisResult(made, json.loads((made.path / "results.json").read_text(encoding="utf-8")))


def merge(
    inputs: Sequence[StrPath],
    base: StrPath | None = None,
    method: str = "linear",
    out: StrPath | None = None,
    **options: Any,
) -> Artifact:
    """Merge adapters or models: ``merge(["math", "code"], base="llm", method="ties")``.

    Args:
        inputs: adapters in PEFT's format and full models: artifacts, directories or hub ids.
        base: the full model that the inputs were trained from.
        method: ``linear``, ``ties``, ``dare_ties`` and so on, see ``help(priorkit.steps.merge_adapters)``.
        out: the directory to make; a temporary one, removed when Python exits, where not given.
        **options: the other options of ``priorkit.steps.merge_adapters``.

    Raises:
        PriorkitError: as the step does.
    """
    return step_function("merge-adapters")(
        list(inputs), base=base, method=method, out=_out(out, "merged"), **options
    )


def _out(out: StrPath | None, name: str) -> StrPath:
    if out is not None:
        return out
    folder = tempfile.mkdtemp(prefix="priorkit-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / name
