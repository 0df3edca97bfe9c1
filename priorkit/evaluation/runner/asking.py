"""Items become prompts, prompts answers: what is the same for every model, whatever runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.prompts import ItemPrompt, PromptBuilder
from priorkit.evaluation.runner.rejected_items import reject_items
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.choice import rotated
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache


@dataclass(frozen=True)
class RequestOptions:
    """How a model is asked.

    Attributes:
        prompter: makes the prompts.
        batch_size: contexts or prompts per forward pass.
        max_new_tokens: most tokens of a written answer.
        circular: whether choices are asked in all rotations of their options.
    """

    prompter: PromptBuilder
    batch_size: int
    max_new_tokens: int
    circular: bool = False


class Responder(Protocol):
    """Puts prompts to one kind of loaded model."""

    def problems(self, units: Sequence[tuple[int, Item]], prompts: Sequence[ItemPrompt]) -> dict[int, str]:
        """Why items cannot be asked, by their position, as far as it is known before they are."""
        ...

    def answers(
        self,
        items: Sequence[Item],
        prompts: Sequence[ItemPrompt],
        task: Task,
        mode: AnswerMode,
        name: str,
        answer_cache: AnswerCache,
    ) -> list[ModelAnswer | str]:
        """An answer to each prompt, or why there is none."""
        ...


def ask(
    responder: Responder,
    options: RequestOptions,
    items: list[Item],
    task: Task,
    mode: AnswerMode,
    rejects: Rejects,
    name: str,
    answer_cache: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """All answers of a model; items that it cannot be asked go to ``rejects``.

    Returns:
        The items that could be asked, and their answers, in order.

    Raises:
        InputError: too many items cannot be asked.
    """
    turns = [len(item.choices) if options.circular and item.choices else 1 for item in items]
    units = [
        (index, rotated(item, by) if by else item)
        for index, (item, count) in enumerate(zip(items, turns, strict=True))
        for by in range(count)
    ]
    prompts = [options.prompter(item, task, mode) for _, item in units]
    problems = responder.problems(units, prompts)
    reject_items(items, problems, rejects, name)
    usable = [unit for unit, (index, _) in enumerate(units) if index not in problems]
    _refuse_none(usable, problems, name)
    answers = responder.answers(
        [units[unit][1] for unit in usable],
        [prompts[unit] for unit in usable],
        task,
        mode,
        name,
        answer_cache,
    )
    late = {
        units[unit][0]: answer
        for unit, answer in reversed(list(zip(usable, answers, strict=True)))
        if isinstance(answer, str)
    }
    reject_items(items, dict(sorted(late.items())), rejects, name)
    collected: dict[int, list[ModelAnswer]] = {}
    for unit, answer in zip(usable, answers, strict=True):
        if units[unit][0] not in late and isinstance(answer, ModelAnswer):
            collected.setdefault(units[unit][0], []).append(answer)
    _refuse_none(list(collected), late, name)
    return [items[index] for index in collected], [
        replace(turns[0], turns=tuple(turns[1:])) for turns in collected.values()
    ]


def _refuse_none(usable: Sequence[int], problems: Mapping[int, str], name: str) -> None:
    if not usable:
        raise InputError(f"no item can be asked; the first: {next(iter(problems.values()))}", where=name)


def option_answer(
    item: Item, prompt: ItemPrompt, scores: dict[int, tuple[float, int]], task: Task,
    prompter: PromptBuilder, image_tokens: int = 0,
) -> ModelAnswer:  # fmt: skip
    """Take the best option: the first of the largest value.

    Probabilities of an option's spellings are added. Options are compared by the log-likelihood of their
    full text, as ``acc`` of lm-evaluation-harness; ``acc_norm`` divides by length.
    """
    sums: list[float] = []
    tokens: list[int] = []
    position = 0
    for group in prompt.options:
        option_scores = [scores[position + number] for number in range(len(group))]
        position += len(group)
        sums.append(_log_sum([value for value, _ in option_scores]))
        tokens.append(max(count for _, count in option_scores))
    taken = max(range(len(sums)), key=lambda index: sums[index])
    options = tuple(group[0] for group in prompter.options(item, task, "likelihood"))
    prediction = item.choices[taken] if item.choices else options[taken]
    return ModelAnswer(
        prediction, prompt.text, taken, tuple(sums), tuple(tokens), options, image_tokens=image_tokens
    )


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    if len(values) == 1 or math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def first_line(text: str) -> str:
    """A language model without a chat template continues with the next question; its answer is one line."""
    return text.strip().split("\n", 1)[0].strip()
