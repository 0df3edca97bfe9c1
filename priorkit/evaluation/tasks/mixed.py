"""Mixed benchmarks (MMMU, MathVista): some items have options, the others a number or words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores, column_means
from priorkit.evaluation.tasks.cells import Row, cell, list_of_text, text_cell, texts_cell
from priorkit.evaluation.tasks.choice import (
    LETTERS,
    chosen_option,
    index_cell,
    options_cell,
    published_options,
    second_accuracy,
)
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.short_answer import score_open


def read_truth(row: Row) -> dict[str, Any]:
    """Options under any of the usual names, with the right one's letter, index or text; else the right text.

    The right text may be a list of accepted ones, or text that shows a list, as in MMMU.

    Raises:
        ValueError: there are options, but not as a list.
    """
    options = published_options(row)
    if options is None:
        if isinstance(row.get("answer"), list):
            return {"answer": json.dumps(texts_cell(row, "answer"), ensure_ascii=False)}
        return {"answer": text_cell(row, "answer")}
    choices = options_cell({"choices": options}, len(LETTERS))
    answer = cell(row, "answer")
    if isinstance(answer, str) and choices.count(answer) == 1:
        return {"choices": choices, "answer": choices.index(answer)}
    return {"choices": choices, "answer": index_cell(row, choices)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions) -> TaskScores:
    """Accuracy over both kinds; an unparsed answer is wrong. See ``choice`` for the second parser."""
    parsed: list[Any] = []
    scores: list[float] = []
    for item, answer in zip(items, answers, strict=True):
        if item.choices:
            chosen = chosen_option(item, answer, options.parser)
            parsed.append(chosen)
            scores.append(float(chosen == item.answer))
        else:
            truth = str(item.answer)
            accepted = [str(text) for text in list_of_text(truth) or ()] or [truth]
            result = max((score_open(answer.text, text) for text in accepted), key=lambda own: own.score)
            parsed.append(result.parsed or None)
            scores.append(result.score)
    counts, metrics = column_means({"accuracy": scores, **second_accuracy(items, answers, options, scores)})
    return TaskScores(scores, parsed, [value is None for value in parsed], counts, metrics)


MIXED = Task(
    "mixed",
    "options for some items, a number or words for the others",
    ("answer",),
    read_truth,
    score,
    instruction=lambda item, form: "choice-letter" if item.choices else "short",
)
