"""Putting prompts to a back end: texts with placeholders and images, as a model's own processor takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.runner.asking import RequestOptions, ask, first_line, option_answer
from priorkit.evaluation.runner.prompts import ItemPrompt
from priorkit.evaluation.runner.rejected_items import reject_items
from priorkit.evaluation.tasks.base import AnswerMode, Task
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.base import (
    Backend,
    Ids,
    Prompt,
    Reply,
    encode_plain,
    prefix_of,
    split_prompt,
)
from priorkit.inference.backends.replies import cached_replies
from priorkit.inference.likelihood.requests import LikelihoodRequest, pair_problem, rolling_requests
from priorkit.models.language.tokenizer import IMAGE, prepend_bos


def run_backend(
    backend: Backend,
    options: RequestOptions,
    items: list[Item],
    task: Task,
    mode: AnswerMode,
    rejects: Rejects,
    name: str,
    answer_cache: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """:func:`priorkit.evaluation.runner.asking.ask`, or the likelihood of documents, by a back end."""
    if task.documents:
        return _read_documents(backend, options, items, rejects, name, answer_cache)
    responder = _BackendResponder(backend, options)
    return ask(responder, options, items, task, mode, rejects, name, answer_cache)


@dataclass(frozen=True)
class _BackendResponder:
    backend: Backend
    options: RequestOptions

    def problems(self, units: Sequence[tuple[int, Item]], prompts: Sequence[ItemPrompt]) -> dict[int, str]:
        """Options without a token; images of another number than placeholders. Lengths show when an item is asked."""
        problems: dict[int, str] = {}
        limit = self.backend.max_length
        for (index, item), prompt in zip(units, prompts, strict=True):
            reasons = [
                pair_problem(ids, place, limit)
                for place, (_, ids) in enumerate(pair for _, pair in _pairs(self.backend, prompt))
            ]
            if (found := self._text(prompt.text).count(self.backend.image_token)) != len(item.images):
                reasons.append(f"its prompt has {found} placeholders for {len(item.images)} images")
            if reason := next(filter(None, reasons), ""):
                problems.setdefault(index, reason)
        return problems

    def _text(self, text: str) -> str:
        return text.replace(IMAGE, self.backend.image_token)

    def answers(
        self,
        items: Sequence[Item],
        prompts: Sequence[ItemPrompt],
        task: Task,
        mode: AnswerMode,
        name: str,
        answer_cache: AnswerCache,
    ) -> list[ModelAnswer | str]:
        """See :class:`priorkit.evaluation.runner.asking.Responder`."""
        if mode == "likelihood":
            return self._compare(items, prompts, task, name, answer_cache)
        given = [
            Prompt(self._text(prompt.text), item.images) for item, prompt in zip(items, prompts, strict=True)
        ]
        plain = self.options.prompter.kind == "plain"
        replies = self._replies(
            given,
            lambda batch: self.backend.generate(
                [given[place] for place in batch], self.options.max_new_tokens
            ),
            name,
            answer_cache,
        )
        return [
            reply.problem
            or ModelAnswer(
                first_line(reply.text) if plain else reply.text.strip(),
                prompt.text,
                image_tokens=reply.image_tokens,
            )
            for reply, prompt in zip(replies, prompts, strict=True)
        ]

    def _compare(
        self,
        items: Sequence[Item],
        prompts: Sequence[ItemPrompt],
        task: Task,
        name: str,
        answer_cache: AnswerCache,
    ) -> list[ModelAnswer | str]:
        """Options by likelihood; an item's options that follow the same text are one request."""
        given: list[Prompt] = []
        continuations: list[list[Ids]] = []
        places: list[tuple[int, list[int]]] = []
        for index, (item, prompt) in enumerate(zip(items, prompts, strict=True)):
            grouped: dict[str, list[tuple[int, Ids]]] = {}
            for place, (context, ids) in _pairs(self.backend, prompt):
                grouped.setdefault(context, []).append((place, ids))
            for context, options in grouped.items():
                given.append(Prompt(self._text(context), item.images))
                continuations.append([ids for _, ids in options])
                places.append((index, [place for place, _ in options]))
        replies = self._replies(
            given,
            lambda batch: self.backend.score(
                [given[place] for place in batch], [continuations[place] for place in batch]
            ),
            name,
            answer_cache,
        )
        scores: list[dict[int, tuple[float, int]]] = [{} for _ in items]
        problems: dict[int, str] = {}
        tokens = [0] * len(items)
        for (index, taken), ids, reply in zip(places, continuations, replies, strict=True):
            if reply.problem:
                problems.setdefault(index, reply.problem)
                continue
            tokens[index] = reply.image_tokens
            scores[index] |= {
                place: (score, len(one)) for place, one, score in zip(taken, ids, reply.scores, strict=True)
            }
        return [
            problems.get(index)
            or option_answer(item, prompt, scores[index], task, self.options.prompter, tokens[index])
            for index, (item, prompt) in enumerate(zip(items, prompts, strict=True))
        ]

    def _replies(
        self,
        given: Sequence[Prompt],
        answer: Callable[[Sequence[int]], list[Reply]],
        name: str,
        answer_cache: AnswerCache,
    ) -> list[Reply]:
        return cached_replies(given, answer, self.options.batch_size, name, answer_cache)


def _pairs(backend: Backend, prompt: ItemPrompt) -> list[tuple[int, tuple[str, Ids]]]:
    """By the number of each spelling of an option: its context's text, and its own token ids."""
    contexts = prompt.contexts or (prompt.text,) * len(prompt.options)
    spellings = [
        (context, spelling)
        for context, group in zip(contexts, prompt.options, strict=True)
        for spelling in group
    ]
    return list(enumerate(split_prompt(backend, context, spelling) for context, spelling in spellings))


def _read_documents(
    backend: Backend,
    options: RequestOptions,
    items: list[Item],
    rejects: Rejects,
    name: str,
    answer_cache: AnswerCache,
) -> tuple[list[Item], list[ModelAnswer]]:
    """Log-likelihoods of documents, in rolling windows."""
    prefix = prefix_of(backend.tokenizer)
    if prefix is None:
        raise InputError("the tokenizer has neither a beginning-of-text nor an end-of-text token", where=name)
    encoded = [encode_plain(backend.tokenizer, item.text) for item in items]
    empty = {index: "the document has no tokens" for index, ids in enumerate(encoded) if not ids}
    reject_items(items, empty, rejects, name)
    documents = [item for item, ids in zip(items, encoded, strict=True) if ids]
    if not documents:
        raise InputError("no document has tokens", where=name)
    texts = [prepend_bos(ids, backend.bos_ids) for ids in encoded if ids]
    requests: list[LikelihoodRequest] = [
        request
        for index, ids in enumerate(texts)
        for request in rolling_requests(index, ids, prefix, backend.max_length)
    ]
    size = options.batch_size
    batches = [
        list(range(start, min(start + size, len(requests)))) for start in range(0, len(requests), size)
    ]
    scores = answer_cache.get_or_compute(
        batches, lambda batch: backend.score_text([requests[place] for place in batch]), name
    )
    sums = [0.0] * len(documents)
    for request, value in zip(requests, scores, strict=True):
        sums[request.item] += value
    return documents, [
        ModelAnswer(loglikelihoods=(total,), tokens=(len(ids),))
        for total, ids in zip(sums, texts, strict=True)
    ]
