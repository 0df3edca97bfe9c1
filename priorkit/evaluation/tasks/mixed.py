"""Mixed benchmarks (MMMU, MathVista): some items have options, the others want a number or words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from priorkit.evaluation.tasks.base import Row, ScoringOptions, Task, TaskScores, cell, mean_scores, text_cell
from priorkit.evaluation.tasks.choice import LETTERS, index_cell, options_cell, taken_option
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.scoring.answers.short_answer import score_open


def read_row(row: Row) -> dict[str, Any]:
    """Options, if there are any, with the right one's letter, index or text; else the one right text."""
    if not row.get("choices"):
        return {"answer": text_cell(row, "answer")}
    choices = options_cell(row, len(LETTERS))
    answer = cell(row, "answer")
    if isinstance(answer, str) and choices.count(answer) == 1:
        return {"choices": choices, "answer": choices.index(answer)}
    return {"choices": choices, "answer": index_cell(row, choices)}


def score(items: Sequence[Item], answers: Sequence[ModelAnswer], rules: ScoringOptions) -> TaskScores:
    """Accuracy over both kinds; an answer that cannot be read is wrong."""
    parsed: list[Any] = []
    scores: list[float] = []
    for item, answer in zip(items, answers, strict=True):
        if item.choices:
            taken = taken_option(item, answer, rules)
            parsed.append(taken)
            scores.append(float(taken == item.answer))
        else:
            reading = score_open(answer.prediction, str(item.answer))
            parsed.append(reading.parsed or None)
            scores.append(reading.score)
    counts, metrics = mean_scores(scores, "accuracy")
    return TaskScores(scores, parsed, [own is None for own in parsed], counts, metrics)


MIXED = Task("mixed", ("answer",), read_row, score, ("generation",), "mixed")
