"""Scoring the answers to a benchmark, with a warning where most of them cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores
from priorkit.evaluation.tasks.item import Item, ModelAnswer

logger = logging.getLogger(__name__)

EXAMPLE_CHARACTERS = 160
"""Of the answer that the warning shows."""


def score_answers(
    name: str, task: Task, items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions
) -> TaskScores:
    """Score all answers; warn with an example if over half of them are unparsed, since the scores say little then.

    Args:
        name: of the benchmark.
        task: its task type.
        items: questions and truth.
        answers: one per item.
        options: how answers are parsed.
    """
    scored = task.score(items, answers, options)
    unparsed = [
        (item, answer)
        for item, answer, missing in zip(items, answers, scored.unparsed, strict=True)
        if missing
    ]
    if 2 * len(unparsed) > len(answers):
        item, answer = next((pair for pair in unparsed if pair[1].text.strip()), unparsed[0])
        text = " ".join(answer.prediction.split())
        text = text if len(text) <= EXAMPLE_CHARACTERS else f"{text[:EXAMPLE_CHARACTERS]} ..."
        space = f" (with --box-space {options.box_space})" if task.boxes else ""
        logger.warning(
            f"{name}: {len(unparsed)} of {len(answers)} answers are unparsed{space} and count as wrong, "
            f"such as that of item {item.id}: {text!r}"
        )
    return scored
