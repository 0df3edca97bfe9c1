"""Putting a benchmark's items to a language model or multimodal model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.item_inputs import inputs_of
from priorkit.evaluation.runner.prompts import ItemPrompt, PromptBuilder
from priorkit.evaluation.runner.rejected_items import reject_items
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.choice import rotated
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference import generation, likelihood
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prompt_inputs import PromptInputs
from priorkit.inference.requests import (
    LikelihoodRequest,
    pair_problem,
    requests_of,
    rolling_requests,
    split_pair,
)

_REMEMBERED = 64
"""Texts whose token ids are kept: an item's options share its prompt, items share their letters."""


TokenPairs = list[tuple[list[int], list[int]]]
"""Token ids of context and continuation for each spelling of each of an item's options."""


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
    options: RequestOptions,
    items: list[Item],
    task: Task,
    mode: AnswerMode,
    rejects: Rejects,
    name: str,
    answer_cache: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """All answers of a model; items whose image and question exceed its length go to ``rejects``.

    Returns:
        The items that could be asked, and their answers, in order.

    Raises:
        InputError: too many items do not fit.
    """
    if task.documents:
        return _read_documents(subject, options, items, rejects, name, answer_cache)
    turns = [len(item.choices) if options.circular and item.choices else 1 for item in items]
    units = [
        (index, rotated(item, by) if by else item)
        for index, (item, count) in enumerate(zip(items, turns, strict=True))
        for by in range(count)
    ]
    prompts = [options.prompter(item, task, mode) for _, item in units]
    encode = _encoder(subject)
    pairs = [_pairs(subject, encode, prompt) for prompt in prompts]
    problems = _problems(subject, encode, units, prompts, pairs)
    reject_items(items, problems, rejects, name)
    usable = [unit for unit, (index, _) in enumerate(units) if index not in problems]
    if not usable:
        raise InputError(f"no item can be asked; the first: {next(iter(problems.values()))}", where=name)
    chosen, prompts = [units[unit][1] for unit in usable], [prompts[unit] for unit in usable]
    inputs = inputs_of(subject.capabilities, chosen, prompts, task)
    if mode == "likelihood":
        kept_pairs = [pairs[unit] for unit in usable]
        answers = _compare(subject, options, chosen, prompts, kept_pairs, inputs, task, name, answer_cache)
    else:
        answers = _write(subject, options, chosen, prompts, inputs, name, answer_cache)
    collected: dict[int, list[ModelAnswer]] = {}
    for unit, answer in zip(usable, answers, strict=True):
        collected.setdefault(units[unit][0], []).append(answer)
    return [items[index] for index in collected], [
        replace(turns[0], turns=tuple(turns[1:])) for turns in collected.values()
    ]


def _encoder(subject: ModelAdapter) -> Callable[[str], list[int]]:
    """Text to token ids; the last texts' are remembered."""
    return lru_cache(maxsize=_REMEMBERED)(subject.encode)


def _pairs(subject: ModelAdapter, encode: Callable[[str], list[int]], prompt: ItemPrompt) -> TokenPairs:
    """Token ids of context and continuation for each spelling of each option."""
    contexts = prompt.contexts or (prompt.text,) * len(prompt.options)
    return [
        split_pair(encode, context, spelling, subject.prefix, subject.bos_ids)
        for context, group in zip(contexts, prompt.options, strict=True)
        for spelling in group
    ]


def _problems(
    subject: ModelAdapter,
    encode: Callable[[str], list[int]],
    units: Sequence[tuple[int, Item]],
    prompts: Sequence[ItemPrompt],
    pairs: Sequence[TokenPairs],
) -> dict[int, str]:
    """Why items cannot be asked, by position: an option without a token, or more tokens than the model takes.

    A text can lose its beginning, a prompt with an image cannot.
    """
    problems: dict[int, str] = {}
    limit = subject.max_length
    for (index, item), prompt, item_pairs in zip(units, prompts, pairs, strict=True):
        if index in problems:
            continue
        reasons = [pair_problem(ids, option, limit) for option, (_, ids) in enumerate(item_pairs)]
        if item.images:
            longest = max((len(ids) for _, ids in item_pairs), default=1)
            needed = len(subject.prepend_bos(encode(prompt.text))) + longest
            if needed > limit:
                reasons.append(f"image and question take {needed} tokens, the model takes {limit}")
        if reason := next(filter(None, reasons), ""):
            problems[index] = reason
    return problems


def _compare(
    subject: ModelAdapter,
    options: RequestOptions,
    items: Sequence[Item],
    prompts: Sequence[ItemPrompt],
    pairs: Sequence[TokenPairs],
    inputs: Sequence[PromptInputs],
    task: Task,
    name: str,
    answer_cache: AnswerCache,
) -> list[ModelAnswer]:
    requests = [
        request
        for index, item_pairs in enumerate(pairs)
        for request in requests_of(index, item_pairs, subject.max_length)
    ]
    scores = _scored(subject, options, requests, inputs, name, answer_cache)
    values: list[dict[int, tuple[float, int]]] = [{} for _ in items]
    for request, likelihoods in zip(requests, scores, strict=True):
        for index, score, ids in zip(request.places, likelihoods, request.continuations, strict=True):
            values[request.item][index] = (score, len(ids))
    return [
        _answer(item, prompt, option_scores, task, options.prompter)
        for item, prompt, option_scores in zip(items, prompts, values, strict=True)
    ]


def _scored(
    subject: ModelAdapter,
    options: RequestOptions,
    requests: Sequence[LikelihoodRequest],
    inputs: Sequence[PromptInputs],
    name: str,
    answer_cache: AnswerCache,
) -> list[list[float]]:
    def score(batch: Sequence[int]) -> list[list[float]]:
        batch_requests = [requests[index] for index in batch]
        seen = [inputs[request.item] for request in batch_requests]
        return [list(values) for values in likelihood.score_batch(subject, batch_requests, seen)]

    return answer_cache.get_or_compute(
        likelihood.batches(subject, requests, inputs, options.batch_size), score, name
    )


def _answer(
    item: Item, prompt: ItemPrompt, scores: dict[int, tuple[float, int]], task: Task, prompter: PromptBuilder
) -> ModelAnswer:
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
    return ModelAnswer(prediction, prompt.text, taken, tuple(sums), tuple(tokens), options)


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    if len(values) == 1 or math.isinf(largest):
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def _write(
    subject: ModelAdapter,
    options: RequestOptions,
    items: Sequence[Item],
    prompts: Sequence[ItemPrompt],
    inputs: Sequence[PromptInputs],
    name: str,
    answer_cache: AnswerCache,
) -> list[ModelAnswer]:
    room = max(1, subject.max_length - options.max_new_tokens)
    plain = options.prompter.kind == "plain"
    encode = _encoder(subject)
    rows = [
        encoded if item.images else (encoded[-room:] or [subject.prefix])
        for item, prompt in zip(items, prompts, strict=True)
        for encoded in (subject.prepend_bos(encode(prompt.text)),)
    ]
    stop = subject.end_tokens

    def write(batch: Sequence[int]) -> list[str]:
        written = generation.generate_batch(
            subject,
            [rows[index] for index in batch],
            [inputs[index] for index in batch],
            max_new_tokens=options.max_new_tokens,
            stop=stop,
            at_once=options.batch_size,
        )
        return subject.tokenizer.batch_decode(written, skip_special_tokens=True)

    texts = answer_cache.get_or_compute(generation.batches(rows, inputs, options.batch_size), write, name)
    return [
        ModelAnswer(_first_line(text) if plain else text.strip(), prompt.text)
        for text, prompt in zip(texts, prompts, strict=True)
    ]


def _first_line(text: str) -> str:
    """A language model without a chat template continues with the next question; its answer is one line."""
    return text.strip().split("\n", 1)[0].strip()


def _read_documents(
    subject: ModelAdapter,
    options: RequestOptions,
    items: list[Item],
    rejects: Rejects,
    name: str,
    answer_cache: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """Log-likelihoods of documents. As in the harness, a beginning-of-text token in front of one is scored too."""
    encoded = subject.document_encoder.ids([item.text for item in items])
    reject_items(
        items,
        {index: "the document has no tokens" for index, ids in enumerate(encoded) if not ids},
        rejects,
        name,
    )
    documents = [item for item, ids in zip(items, encoded, strict=True) if ids]
    if not documents:
        raise InputError("no document has tokens", where=name)
    texts = [subject.prepend_bos(ids) for ids in encoded if ids]
    requests = [
        request
        for index, ids in enumerate(texts)
        for request in rolling_requests(index, ids, subject.prefix, subject.max_length)
    ]
    scores = _scored(subject, options, requests, [PromptInputs()] * len(documents), name, answer_cache)
    sums = [0.0] * len(documents)
    for request, (value,) in zip(requests, scores, strict=True):
        sums[request.item] += value
    return documents, [
        ModelAnswer(loglikelihoods=(total,), tokens=(len(ids),))
        for total, ids in zip(sums, texts, strict=True)
    ]
