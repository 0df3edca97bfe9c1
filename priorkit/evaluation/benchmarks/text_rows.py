"""Items as text only: as conversations to train on, and as rows of a benchmark without images; folds of items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.core.errors import InputError
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.item import Item


def refuse_other_tasks(task: Task, name: str) -> None:
    """Check that items of a task type are a question with a short answer.

    Raises:
        InputError: they are not.
    """
    if not task.needs_question or task.boxes or task.documents or "references" in task.columns:
        raise InputError(
            f"items of '{task.name}' are no questions with a short answer",
            where=name,
            hint="choices, yes or no, and short answers can be learned from text",
        )


def answer_text(item: Item, task: Task) -> str:
    """What a model is trained to answer: an option's letter, yes or no, or the most frequent accepted text."""
    if item.choices:
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[int(item.answer or 0)]
    if item.answers:
        return Counter(item.answers).most_common(1)[0][0]
    answer = str(item.answer)
    return answer.capitalize() if task.name == "yes-no" else answer


def conversation(item: Item, question: str, task: Task) -> dict[str, Any]:
    """A row of instructions in LLaVA's format, without the image.

    Args:
        item: the item.
        question: the user's words, as an evaluation asks them.
        task: its task type.
    """
    return {
        "id": str(item.id),
        "conversations": [
            {"from": "human", "value": question},
            {"from": "gpt", "value": answer_text(item, task)},
        ],
    }


def text_row(item: Item, task: Task) -> dict[str, Any]:
    """A row of a benchmark that asks the item without its image."""
    return {"id": item.id, "question": item.question, "task": task.name, **item.truth(), **item.groups}


def fold_of(items: Sequence[Item], folds: int, seed: int, name: str) -> list[int]:
    """The fold of each item; items about one image share one, so that none is seen in training.

    Folds differ by at most the size of one cluster: images are drawn in random order into the smallest fold.

    Raises:
        InputError: there are fewer images (or questions without one) than folds.
    """
    clusters: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        clusters.setdefault(item.cluster or f"#{index}", []).append(index)
    if len(clusters) < folds:
        raise InputError(f"{len(clusters)} images cannot be cut into {folds} folds", where=name)
    keys = list(clusters)
    sizes = [0] * folds
    found = [0] * len(items)
    for place in np.random.Generator(np.random.PCG64(seed)).permutation(len(keys)).tolist():
        fold = min(range(folds), key=lambda number: (sizes[number], number))
        for index in clusters[keys[place]]:
            found[index] = fold
        sizes[fold] += len(clusters[keys[place]])
    return found
