"""Multiple choice: read from free text, or the option with the best likelihood or similarity."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.evals.items import Answer, Item
from priorkit.evals.statistics import Floats
from priorkit.evals.tasks.task import Parser, Row, Scored, Task, cell, texts_cell
from priorkit.scoring.choice import read_choice, read_choice_lsbs
from priorkit.scoring.language import predict_choice

LETTERS = string.ascii_uppercase


def read_row(row: Row) -> dict[str, Any]:
    """Options and the index of the right one; ``answer`` is an index from 0 or a letter.

    Raises:
        ValueError: fewer than two options, more than 26, or an answer that is none of them.
    """
    choices = texts_cell(row, "choices")
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"'choices' must hold 2 to {len(LETTERS)} options, got {len(choices)}")
    if blank := [place for place, choice in enumerate(choices) if not choice.strip()]:
        raise ValueError(f"'choices'[{blank[0]}] is empty")
    return {"choices": choices, "answer": _index(cell(row, "answer"), choices)}


def _index(answer: Any, choices: Sequence[str]) -> int:
    last = len(choices) - 1
    wanted = f"an index from 0 to {last} or a letter from A to {LETTERS[last]}"
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in LETTERS:
        index = LETTERS.index(answer.strip().upper())
    elif isinstance(answer, int | float) and not isinstance(answer, bool) and answer == int(answer):
        index = int(answer)
    else:
        raise ValueError(f"'answer' must be {wanted}, got {answer!r}")
    if not 0 <= index <= last:
        raise ValueError(f"'answer' must be {wanted}, got {answer!r}")
    return index


def score(items: Sequence[Item], answers: Sequence[Answer], parser: Parser) -> Scored:
    """Accuracy; where all answers carry likelihoods also ``acc`` and ``acc_norm`` of lm-evaluation-harness.

    ``acc`` takes the option of the largest summed log-probability, ``acc_norm`` divides it by the
    number of characters of what was scored, so that the two are the same for letters.
    """
    read = read_choice if parser == "careful" else read_choice_lsbs
    parsed = [
        answer.taken if answer.taken is not None else read(answer.prediction, item.choices)
        for item, answer in zip(items, answers, strict=True)
    ]
    scores = [float(index == item.answer) for index, item in zip(parsed, items, strict=True)]
    columns = [np.ones(len(items)), np.array(scores)]
    names = ["accuracy"]
    extra: dict[str, list[Any]] = {}
    if all(answer.loglikelihoods for answer in answers):
        harness = [
            predict_choice(answer.loglikelihoods, answer.options).accuracies(_gold(item))
            for item, answer in zip(items, answers, strict=True)
        ]
        for name in ("acc", "acc_norm"):
            names.append(name)
            columns.append(np.array([row[name] for row in harness]))
        extra["loglikelihoods"] = [list(answer.loglikelihoods) for answer in answers]

    def metrics(sums: Floats) -> dict[str, Floats]:
        return {name: sums[..., place] / sums[..., 0] for place, name in enumerate(names, start=1)}

    unparsed = [index is None for index in parsed]
    return Scored(scores, list(parsed), unparsed, np.stack(columns, axis=1), metrics, extra)


def _gold(item: Item) -> int:
    if not isinstance(item.answer, int):
        raise TypeError(f"the answer of a choice is an index, got {item.answer!r}")
    return item.answer


CHOICE = Task("choice", ("choices", "answer"), read_row, score, ("likelihood", "generation"), "choice")
