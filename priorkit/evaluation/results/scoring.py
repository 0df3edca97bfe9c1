"""Scoring the answers to a benchmark, with warnings where most cannot be parsed or options tie."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from priorkit.evaluation.tasks.base import ScoringOptions, Task, TaskScores
from priorkit.evaluation.tasks.item import Item, ModelAnswer

logger = logging.getLogger(__name__)

EXAMPLE_CHARACTERS = 160
"""Of the answer that the warning shows."""


def score_answers(
    name: str, task: Task, items: Sequence[Item], answers: Sequence[ModelAnswer], options: ScoringOptions
) -> TaskScores:
    """Score all answers; warn with an example if over half of them are unparsed, or where options tie.

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
    _warn_of_ties(name, items, answers)
    return scored


def _warn_of_ties(name: str, items: Sequence[Item], answers: Sequence[ModelAnswer]) -> None:
    """Warn of items of which the order of the options decides: the first of equal ones is taken, as in the harness."""
    compared = [
        (item, answer)
        for item, answer in zip(items, answers, strict=True)
        if answer.taken is not None and len(answer.loglikelihoods) > 1
    ]
    invalid = [item for item, answer in compared if any(map(math.isnan, answer.loglikelihoods))]
    tied = [
        (item, answer)
        for item, answer in compared
        if answer.loglikelihoods.count(max(answer.loglikelihoods)) > 1
        and not any(map(math.isnan, answer.loglikelihoods))
    ]
    if invalid:
        logger.warning(
            f"{name}: for {len(invalid)} of {len(compared)} items the model's log-likelihoods are NaN, "
            f"such as for item {invalid[0].id}; the first option is taken, and the scores say nothing of them"
        )
    if tied:
        item, answer = tied[0]
        best = max(answer.loglikelihoods)
        equal = [
            repr(option)
            for option, value in zip(answer.options, answer.loglikelihoods, strict=False)
            if value == best
        ]
        logger.warning(
            f"{name}: for {len(tied)} of {len(compared)} items the best options are equally likely, such as for item "
            f"{item.id} ({', '.join(equal)}: {best:.4g}); the first of them is taken"
        )
