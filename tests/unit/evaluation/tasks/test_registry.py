"""A new task type takes one module and one entry of the registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import priorkit
from priorkit.evaluation.settings import EvaluateSettings
from priorkit.evaluation.tasks.registry import TASKS

MODULE = '''
"""Answers that begin with the right letter."""

from priorkit.evaluation.tasks.base import Task, TaskScores, mean_scores
from priorkit.evaluation.tasks.cells import text_cell


def score(items, answers, options):
    scores = [float(answer.prediction[:1] == item.answer[:1]) for item, answer in zip(items, answers)]
    parsed = [answer.prediction[:1] or None for answer in answers]
    counts, metrics = mean_scores(scores, "initials")
    return TaskScores(scores, parsed, [value is None for value in parsed], counts, metrics)


INITIAL = Task(
    "initial", "the first letter", ("answer",), lambda row: {"answer": text_cell(row, "answer")}, score, ("initials",)
)
'''


def test_a_new_task_type_takes_a_module_and_a_line(tmp_path: Path) -> None:
    package = tmp_path / "priorkit"
    shutil.copytree(Path(priorkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    tasks = package / "evaluation" / "tasks"
    (tasks / "initial.py").write_text(MODULE)
    registry = (tasks / "registry.py").read_text()
    registry = registry.replace("        CONTINUATION,\n", "        CONTINUATION,\n        INITIAL,\n", 1)
    registry = registry.replace(
        "from priorkit.evaluation.tasks.mixed",
        "from priorkit.evaluation.tasks.initial import INITIAL\nfrom priorkit.evaluation.tasks.mixed",
        1,
    )
    (tasks / "registry.py").write_text(registry)
    rows = [
        {"id": 1, "question": "?", "answer": "red", "prediction": "rouge"},
        {"id": 2, "question": "?", "answer": "blue", "prediction": "red"},
        {"id": 3, "question": "?", "answer": "green", "prediction": ""},
    ]
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, "-m", "priorkit", "evaluate"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> str:
        done = subprocess.run(
            [*command, *words], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "initial (the first letter)" in " ".join(run("--help-all").split())
    run("--predictions", str(file), "--task", "initial", "--out", str(tmp_path / "out"))
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]["answers"]
    assert entry["task"] == "initial"
    assert entry["headline"] == "initials"
    assert entry["metrics"]["initials"]["value"] == pytest.approx(1 / 3)
    assert entry["unparsed"] == 1


def test_the_help_names_every_task_type() -> None:
    text = EvaluateSettings.model_fields["task"].description or ""
    assert all(f"{name} (" in text for name in TASKS)
