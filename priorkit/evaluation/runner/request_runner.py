"""Putting a benchmark's items to a language model or multimodal model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.item_inputs import inputs_of
from priorkit.evaluation.runner.prompts import ItemPrompt, PromptBuilder
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.choice import rotated
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference import generation, likelihood
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.chat_prompts import remove_special_text
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.inference.requests import LikelihoodRequest, requests_of, rolling_requests, split_pair

_REMEMBERED = 64
"""Texts whose token ids are kept: an item's options share its prompt, items share their letters."""


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


def run_requests(
    subject: ModelAdapter,
    asking: RequestOptions,
    items: list[Item],
    task: Task,
    way: AnswerMode,
    rejects: Rejects,
    name: str,
    journal: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """All answers of a model; items whose image and question exceed its length go to ``rejects``.

    Returns:
        The items that could be asked, and their answers, in order.

    Raises:
        InputError: too many items do not fit.
    """
    if task.documents:
        return items, _read_documents(subject, asking, items, name, journal)
    turns = [len(item.choices) if asking.circular and item.choices else 1 for item in items]
    asked = [
        (place, rotated(item, by) if by else item)
        for place, (item, count) in enumerate(zip(items, turns, strict=True))
        for by in range(count)
    ]
    prompts = [asking.prompter(item, task, way) for _, item in asked]
    unfit = _unfit(subject, asking, asked, prompts, rejects, name)
    kept = [unit for unit, (place, _) in enumerate(asked) if place not in unfit]
    if not kept:
        raise InputError(f"no item fits into the model's {subject.max_length} tokens", where=name)
    chosen, prompts = [asked[unit][1] for unit in kept], [prompts[unit] for unit in kept]
    inputs = inputs_of(subject.capabilities, chosen, prompts, task)
    answer = _compare if way == "likelihood" else _write
    answers = answer(subject, asking, chosen, prompts, inputs, task, name, journal)
    collected: dict[int, list[ModelAnswer]] = {}
    for unit, own in zip(kept, answers, strict=True):
        collected.setdefault(asked[unit][0], []).append(own)
    return [items[place] for place in collected], [
        replace(own[0], turns=tuple(own[1:])) for own in collected.values()
    ]


def _encoder(subject: ModelAdapter, asking: RequestOptions) -> Callable[[str], list[int]]:
    """Text to token ids; the last texts' are remembered."""
    return lru_cache(maxsize=_REMEMBERED)(partial(subject.encode, chat=asking.prompter.kind == "chat"))


def _unfit(
    subject: ModelAdapter,
    asking: RequestOptions,
    asked: Sequence[tuple[int, Item]],
    prompts: Sequence[ItemPrompt],
    rejects: Rejects,
    name: str,
) -> set[int]:
    """Items that do not fit; a text can lose its beginning, a prompt with an image cannot."""
    encode = _encoder(subject, asking)
    unfit: set[int] = set()
    for (place, item), prompt in zip(asked, prompts, strict=True):
        if not item.images or place in unfit:
            continue
        options = [option for group in prompt.options for option in group]
        longest = max((len(encode(option)) for option in options), default=1)
        needed = len(encode(prompt.text)) + longest
        if needed > subject.max_length:
            unfit.add(place)
            reason = f"image and question take {needed} tokens, the model {subject.max_length}"
            rejects.add(name, place + 1, reason)
    rejects.raise_if_over_limit()
    return unfit


def _compare(
    subject: ModelAdapter,
    asking: RequestOptions,
    items: Sequence[Item],
    prompts: Sequence[ItemPrompt],
    inputs: Sequence[PromptInputs],
    task: Task,
    name: str,
    journal: AnswerCache,
) -> list[ModelAnswer]:
    encode = _encoder(subject, asking)
    requests: list[LikelihoodRequest] = []
    for place, prompt in enumerate(prompts):
        contexts = prompt.contexts or (prompt.text,) * len(prompt.options)
        pairs = [
            split_pair(encode, context, spelling, subject.prefix)
            for context, group in zip(contexts, prompt.options, strict=True)
            for spelling in group
        ]
        requests += requests_of(place, pairs, subject.max_length)
    scores = _scored(subject, asking, requests, inputs, name, journal)
    values: list[dict[int, tuple[float, int]]] = [{} for _ in items]
    for request, own in zip(requests, scores, strict=True):
        for place, score, ids in zip(request.places, own, request.continuations, strict=True):
            values[request.item][place] = (score, len(ids))
    return [
        _answer(item, prompt, own, task, asking.prompter)
        for item, prompt, own in zip(items, prompts, values, strict=True)
    ]


def _scored(
    subject: ModelAdapter,
    asking: RequestOptions,
    requests: Sequence[LikelihoodRequest],
    inputs: Sequence[PromptInputs],
    name: str,
    journal: AnswerCache,
) -> list[list[float]]:
    def score(batch: Sequence[int]) -> list[list[float]]:
        own = [requests[place] for place in batch]
        seen = [inputs[request.item] for request in own]
        return [list(values) for values in likelihood.score_batch(subject, own, seen)]

    return journal.get_or_compute(
        likelihood.batches(subject, requests, inputs, asking.batch_size), score, name
    )


def _answer(
    item: Item, prompt: ItemPrompt, scores: dict[int, tuple[float, int]], task: Task, prompter: PromptBuilder
) -> ModelAnswer:
    """Take the best option: the first of the largest value.

    Probabilities of an option's spellings are added. Options are compared by the log-likelihood of their
    whole text, as ``acc`` of lm-evaluation-harness; ``acc_norm`` divides by length.
    """
    sums: list[float] = []
    tokens: list[int] = []
    place = 0
    for group in prompt.options:
        own = [scores[place + number] for number in range(len(group))]
        place += len(group)
        sums.append(_log_sum([value for value, _ in own]))
        tokens.append(max(count for _, count in own))
    taken = max(range(len(sums)), key=lambda index: sums[index])
    options = tuple(group[0] for group in prompter.options(item, task, "likelihood"))
    prediction = item.choices[taken] if item.choices else options[taken]
    return ModelAnswer(prediction, prompt.text, taken, tuple(sums), tuple(tokens), options)


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    if len(values) == 1 or math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _write(
    subject: ModelAdapter,
    asking: RequestOptions,
    items: Sequence[Item],
    prompts: Sequence[ItemPrompt],
    inputs: Sequence[PromptInputs],
    task: Task,
    name: str,
    journal: AnswerCache,
) -> list[ModelAnswer]:
    room = max(1, subject.max_length - asking.max_new_tokens)
    plain = asking.prompter.kind == "plain"
    encode = _encoder(subject, asking)
    rows = [
        encoded if item.images else (encoded[-room:] or [subject.prefix])
        for item, prompt in zip(items, prompts, strict=True)
        for encoded in (encode(prompt.text),)
    ]
    stop = subject.end_tokens

    def write(batch: Sequence[int]) -> list[str]:
        written = generation.generate_batch(
            subject,
            [rows[place] for place in batch],
            [inputs[place] for place in batch],
            max_new_tokens=asking.max_new_tokens,
            stop=stop,
            at_once=asking.batch_size,
        )
        return subject.tokenizer.batch_decode(written, skip_special_tokens=True)

    texts = journal.get_or_compute(generation.batches(rows, inputs, asking.batch_size), write, name)
    return [
        ModelAnswer(_first_line(text) if plain else text.strip(), prompt.text)
        for text, prompt in zip(texts, prompts, strict=True)
    ]


def _first_line(text: str) -> str:
    """A language model without a chat template continues with the next question; its answer is one line."""
    return text.strip().split("\n", 1)[0].strip()


def _read_documents(
    subject: ModelAdapter, asking: RequestOptions, items: Sequence[Item], name: str, journal: AnswerCache
) -> list[ModelAnswer]:
    requests: list[LikelihoodRequest] = []
    lengths: list[int] = []
    texts = subject.encode_all([remove_special_text(item.text) for item in items])
    for place, ids in enumerate(texts):
        lengths.append(len(ids))
        requests += rolling_requests(place, ids, subject.prefix, subject.max_length)
    if not all(lengths):
        raise InputError(f"document {items[lengths.index(0)].id} has no tokens", where=name)
    scores = _scored(subject, asking, requests, [PromptInputs()] * len(items), name, journal)
    sums = [0.0] * len(items)
    for request, (value,) in zip(requests, scores, strict=True):
        sums[request.item] += value
    return [
        ModelAnswer(loglikelihoods=(total,), tokens=(count,))
        for total, count in zip(sums, lengths, strict=True)
    ]
