"""Replies of a back end to many prompts, in batches, kept while a run lasts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from priorkit.inference.answer_cache import AnswerCache
from priorkit.inference.backends.base import Prompt, Reply


def cached_replies(
    prompts: Sequence[Prompt],
    answer: Callable[[Sequence[int]], list[Reply]],
    batch_size: int,
    title: str,
    answer_cache: AnswerCache,
) -> list[Reply]:
    """Replies to all prompts in order, from the cache where they are known.

    Args:
        prompts: all of them.
        answer: replies to a batch, by the numbers of its prompts.
        batch_size: most prompts of a batch.
        title: label of the progress bar.
        answer_cache: keeps them.
    """

    def compute(batch: Sequence[int]) -> list[list[Any]]:
        return [
            [reply.text, list(reply.scores), reply.image_tokens, reply.problem] for reply in answer(batch)
        ]

    stored = answer_cache.get_or_compute(prompt_batches(prompts, batch_size), compute, title)
    return [Reply(text, tuple(scores), tokens, problem) for text, scores, tokens, problem in stored]


def prompt_batches(prompts: Sequence[Prompt], batch_size: int) -> list[list[int]]:
    """Numbers of prompts with equally many images together, longest text first."""
    order = sorted(
        range(len(prompts)), key=lambda place: (-len(prompts[place].images), -len(prompts[place].text), place)
    )
    batches: list[list[int]] = []
    for place in order:
        images = len(prompts[place].images)
        if not batches or len(batches[-1]) == batch_size or len(prompts[batches[-1][0]].images) != images:
            batches.append([])
        batches[-1].append(place)
    return batches
