"""Files of a stress test: the text of a benchmark in folds, to train on and to be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.evaluation.benchmarks.text_rows import conversation, fold_of, text_row
from priorkit.evaluation.runner.prompts import PromptBuilder
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.item import Item


def write_folds(
    items: Sequence[Item], task: Task, folder: Path, count: int, seed: int, name: str
) -> list[int]:
    """Write ``all.jsonl``, and for each fold ``fold-K/train.jsonl`` (the others) and ``fold-K/held-out.jsonl``.

    Questions are worded as an evaluation words them, so that the tuned model is asked as it was trained.

    Args:
        items: of a benchmark.
        task: their task type.
        folder: where to.
        count: how many folds.
        seed: deals images out to folds.
        name: of the benchmark.

    Returns:
        The fold of each item.

    Raises:
        InputError: there are fewer images than folds.
    """
    folds = fold_of(items, count, seed, name)
    prompter = PromptBuilder(None, "chat", "letter")
    mode = task.modes[0]
    rows = [text_row(item, task) for item in items]
    taught = [conversation(item, prompter.user_text(item, task, mode), task) for item in items]
    _write(rows, folder / "all.jsonl")
    for fold in range(count):
        part = folder / f"fold-{fold}"
        _write([row for row, its in zip(taught, folds, strict=True) if its != fold], part / "train.jsonl")
        _write([row for row, its in zip(rows, folds, strict=True) if its == fold], part / "held-out.jsonl")
    return folds


def _write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
