"""Putting prompts to a language model or multimodal model by priorkit's own loops: token ids and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions, ask, first_line, option_answer
from priorkit.evaluation.runner.item_inputs import inputs_of
from priorkit.evaluation.runner.prompts import ItemPrompt
from priorkit.evaluation.runner.rejected_items import reject_items
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference import generation
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.likelihood import scoring
from priorkit.inference.likelihood.requests import (
    LikelihoodRequest,
    pair_problem,
    requests_of,
    rolling_requests,
    split_pair,
)
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.prompt_inputs import PromptInputs

_REMEMBERED = 64
"""Texts whose token ids are kept: an item's options share its prompt, items share their letters."""


TokenPairs = list[tuple[list[int], list[int]]]
"""Token ids of context and continuation for each spelling of each of an item's options."""


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
    """:func:`ask`, or the likelihood of documents, by priorkit's own loops."""
    if task.documents:
        return _read_documents(subject, options, items, rejects, name, answer_cache)
    return ask(_TokenResponder(subject, options), options, items, task, mode, rejects, name, answer_cache)


@dataclass
class _TokenResponder:
    """A model whose prompts are token ids, with as many positions for every image."""

    subject: ModelAdapter
    options: RequestOptions
    _pairs_of: dict[int, TokenPairs] = field(default_factory=dict[int, TokenPairs])

    def problems(self, units: Sequence[tuple[int, Item]], prompts: Sequence[ItemPrompt]) -> dict[int, str]:
        encode = _encoder(self.subject)
        pairs = [_pairs(self.subject, encode, prompt) for prompt in prompts]
        self._pairs_of = dict(zip(map(id, prompts), pairs, strict=True))
        return _problems(self.subject, encode, units, prompts, pairs)

    def answers(
        self,
        items: Sequence[Item],
        prompts: Sequence[ItemPrompt],
        task: Task,
        mode: AnswerMode,
        name: str,
        answer_cache: AnswerCache,
    ) -> list[ModelAnswer | str]:
        subject, options = self.subject, self.options
        inputs = inputs_of(subject.capabilities, items, prompts, task)
        if mode == "likelihood":
            pairs = [self._pairs_of[id(prompt)] for prompt in prompts]
            answers = _compare(subject, options, items, prompts, pairs, inputs, task, name, answer_cache)
        else:
            answers = _write(subject, options, items, prompts, inputs, name, answer_cache)
        each = subject.multimodal.image_tokens if subject.multimodal is not None else 0
        return [
            replace(answer, image_tokens=each * len(item.images))
            for item, answer in zip(items, answers, strict=True)
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
        option_answer(item, prompt, option_scores, task, options.prompter)
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
        return [list(values) for values in scoring.score_batch(subject, batch_requests, seen)]

    return answer_cache.get_or_compute(
        scoring.batches(subject, requests, inputs, options.batch_size), score, name
    )


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
        ModelAnswer(first_line(text) if plain else text.strip(), prompt.text)
        for text, prompt in zip(texts, prompts, strict=True)
    ]


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
