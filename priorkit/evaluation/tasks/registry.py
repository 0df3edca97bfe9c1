"""All task types by name, and which one a table's columns fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from priorkit.core.errors import InputError, nearest
from priorkit.evaluation.tasks.base import Task
from priorkit.evaluation.tasks.caption import CAPTION
from priorkit.evaluation.tasks.choice import CHOICE
from priorkit.evaluation.tasks.continuation import CONTINUATION
from priorkit.evaluation.tasks.encoders.pointing import POINTING
from priorkit.evaluation.tasks.encoders.retrieval import RETRIEVAL
from priorkit.evaluation.tasks.grounding import GROUNDING
from priorkit.evaluation.tasks.mixed import MIXED
from priorkit.evaluation.tasks.perplexity import PERPLEXITY
from priorkit.evaluation.tasks.ranking import RANKING
from priorkit.evaluation.tasks.short_answer import EXACT, GQA, OCR, RELAXED, TEXTVQA, VQA
from priorkit.evaluation.tasks.yes_no import YES_NO

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        CHOICE,
        CAPTION,
        GROUNDING,
        VQA,
        YES_NO,
        EXACT,
        RETRIEVAL,
        PERPLEXITY,
        TEXTVQA,
        GQA,
        RELAXED,
        OCR,
        MIXED,
        RANKING,
        POINTING,
        CONTINUATION,
    )
}
"""All task types; a table without a column ``task`` is of the first that recognizes it."""


def task_named(name: str, where: str) -> Task:
    """A task type by its name.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"no task type '{name}'", where=where, hint=nearest(name, TASKS))
    return TASKS[name]


def task_of(columns: Sequence[str], named: Iterable[Any], answers: Iterable[Any], where: str) -> Task:
    """The task type of a table: named in its column ``task``, or else recognized by its columns.

    Args:
        columns: names of all columns.
        named: the values of the column ``task``.
        answers: the values of the column ``answer``.
        where: the file, for errors.

    Raises:
        InputError: several task types in one file, an unknown one, or columns that fit none.
    """
    names = list(dict.fromkeys(value for value in named if value is not None))
    if len(names) > 1:
        raise InputError(
            f"the column 'task' names several task types: {', '.join(map(str, names[:5]))}",
            where=where,
            hint="use one file per task type, or set --task",
        )
    if names:
        return task_named(str(names[0]), f"{where}, column 'task'")
    present = frozenset(columns)
    for task in TASKS.values():
        if task.recognize is not None and task.recognize(present, answers):
            return task
    kinds = "; ".join(f"{task.name}: {', '.join(task.columns)}" for task in TASKS.values())
    raise InputError(
        f"the columns {', '.join(columns)} fit no task type",
        where=where,
        hint=f"name the task with --task, columns with --question-column and the like ({kinds})",
    )


def task_help() -> str:
    """The task types with their summaries, for the help text of ``--task``."""
    return ", ".join(f"{task.name} ({task.summary})" for task in TASKS.values())
