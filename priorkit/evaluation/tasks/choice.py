"""Multiple choice: read from free text, or the option with the best likelihood or similarity."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from priorkit.evaluation.tasks.base import (
    Row,
    ScoringOptions,
    Task,
    TaskScores,
    cell,
    is_number,
    text_cell,
    texts_cell,
)
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.language_metrics import predict_choice
from priorkit.scoring.answers.mcq.parser import read_choice, read_choice_lsbs
from priorkit.scoring.statistics.bootstrap import Floats

LETTERS = string.ascii_uppercase


def read_row(row: Row) -> dict[str, Any]:
    """Options and the index of the right one; ``answer`` is an index from 0, a letter or an option's text.

    Raises:
        ValueError: fewer than two options, more than 26, or an answer that is none of them.
    """
    choices = options_cell(row, len(LETTERS))
    found = {"choices": choices, "answer": index_cell(row, choices)}
    if row.get("contexts") is None:
        return found
    contexts = texts_cell(row, "contexts")
    if len(contexts) != len(choices):
        raise ValueError(f"'contexts' must hold one text per option, got {len(contexts)} for {len(choices)}")
    return {**found, "contexts": contexts, "text": text_cell(row, "text", blank=False)}


def options_cell(row: Row, most: int) -> tuple[str, ...]:
    """The options: at least two, none of them blank.

    Raises:
        ValueError: too few or too many, or an empty one.
    """
    choices = texts_cell(row, "choices")
    if not 2 <= len(choices) <= most:
        raise ValueError(f"'choices' must hold 2 to {most} options, got {len(choices)}")
    if blank := [place for place, choice in enumerate(choices) if not choice.strip()]:
        raise ValueError(f"'choices'[{blank[0]}] is empty")
    return choices


def index_cell(row: Row, choices: Sequence[str]) -> int:
    """The right option: an index from 0, a letter, or the text of exactly one option.

    Raises:
        ValueError: it is none of them.
    """
    return _index(cell(row, "answer"), choices)


def _index(answer: Any, choices: Sequence[str]) -> int:
    last = len(choices) - 1
    wanted = f"an index from 0 to {last}"
    wanted += f", a letter from A to {LETTERS[last]}" if last < len(LETTERS) else ""
    wanted += " or the text of one option"
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().upper() in LETTERS:
        index = LETTERS.index(answer.strip().upper())
    elif is_number(answer) and answer == int(answer):
        index = int(answer)
    elif isinstance(answer, str) and list(choices).count(answer) == 1:
        index = list(choices).index(answer)
    else:
        raise ValueError(f"'answer' must be {wanted}, got {answer!r}")
    if not 0 <= index <= last:
        raise ValueError(f"'answer' must be {wanted}, got {answer!r}")
    return index


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions) -> TaskScores:
    """Accuracy; where all answers carry likelihoods also ``acc`` and ``acc_norm`` of lm-evaluation-harness.

    ``acc`` takes the option of the largest summed log-probability, ``acc_norm`` divides it by the
    number of characters of what was scored, so that the two are the same for letters. Where the options
    were rotated, ``circular_accuracy`` counts an item that was right in every rotation (MMBench), and so
    does the item's own score; ``accuracy`` remains that of the first asking.
    """
    parsed = [taken_option(item, answer, rules) for item, answer in zip(items, answers, strict=True)]
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

    if all(answer.turns for answer in answers):
        turns = [_turns(item, answer, rules) for item, answer in zip(items, answers, strict=True)]
        scores = [
            score * all(index == item.answer for index in own)
            for item, score, own in zip(items, scores, turns, strict=True)
        ]
        names.append("circular_accuracy")
        columns.append(np.array(scores))
        extra["rotations"] = [list(own) for own in turns]

    def metrics(sums: Floats) -> dict[str, Floats]:
        return {name: sums[..., place] / sums[..., 0] for place, name in enumerate(names, start=1)}

    unparsed = [index is None for index in parsed]
    return TaskScores(scores, list(parsed), unparsed, np.stack(columns, axis=1), metrics, extra)


def taken_option(item: Item, answer: ModelAnswer, rules: ScoringOptions) -> int | None:
    """The option that an answer takes, None where it cannot be read."""
    if answer.taken is not None:
        return answer.taken
    read = read_choice if rules.parser == "careful" else read_choice_lsbs
    return read(answer.prediction, item.choices)


def rotated(item: Item, by: int) -> Item:
    """The item with its options moved to the front by so many places."""
    count = len(item.choices)
    return replace(item, choices=item.choices[by:] + item.choices[:by], answer=(_gold(item) - by) % count)


def _turns(item: Item, answer: ModelAnswer, rules: ScoringOptions) -> tuple[int | None, ...]:
    """What the rotated askings took, as indices of the options in their own order."""
    found = (taken_option(rotated(item, by), own, rules) for by, own in enumerate(answer.turns, start=1))
    count = len(item.choices)
    return tuple(None if index is None else (index + by) % count for by, index in enumerate(found, start=1))


def _gold(item: Item) -> int:
    if not isinstance(item.answer, int):
        raise TypeError(f"the answer of a choice is an index, got {item.answer!r}")
    return item.answer


CHOICE = Task(
    "choice", ("choices", "answer"), read_row, score, ("likelihood", "generation"), "choice",
    metrics=("accuracy", "acc", "acc_norm", "circular_accuracy"),
)  # fmt: skip
