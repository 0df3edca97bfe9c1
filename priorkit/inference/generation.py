"""Greedy generation in batches: padded on the left, sorted by length, finished rows make room for others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch

from priorkit.inference.decoding.growing_cache import DecodingBatch, GrowingBatch
from priorkit.inference.prefill import PrefillState, can_join, prefill
from priorkit.inference.prompt_inputs import PromptInputs

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter


REFILLS = 8
"""A unit of work, which is answered again after a kill, is as many batches: enough to keep places taken."""


def batches(
    prompts: Sequence[Sequence[int]], inputs: Sequence[PromptInputs], batch_size: int
) -> list[list[int]]:
    """Numbers of prompts answered together, longest first; prompts about one image are adjacent."""
    keys = [prompt.key for prompt in inputs]
    lengths: dict[tuple[str, ...], int] = {}
    for key, prompt in zip(keys, prompts, strict=True):
        lengths[key] = max(lengths.get(key, 0), len(prompt))
    order = sorted(
        range(len(prompts)),
        key=lambda index: (
            -lengths[keys[index]] if keys[index] else 0,
            keys[index],
            -len(prompts[index]),
            index,
        ),
    )
    size = batch_size * REFILLS
    return [order[start : start + size] for start in range(0, len(order), size)]


@torch.no_grad()
def generate_batch(
    model: ModelAdapter,
    rows: Sequence[Sequence[int]],
    inputs: Sequence[PromptInputs],
    *,
    max_new_tokens: int,
    stop: Collection[int],
    at_once: int = 0,
) -> list[list[int]]:
    """Answer prompts by the most probable token, one after the other.

    A row leaves the batch once it has ended, and when half the places are free the next prompts take them:
    a step costs much the same for a few rows as for many. Every row attends only to itself, so that neither batch
    size nor order change an answer but for the rounding of matrix products.

    Args:
        model: the model.
        rows: token ids of each prompt, shorter than the model takes.
        inputs: each prompt's images, question and task type.
        max_new_tokens: most tokens of an answer; fewer where the model's length is reached before.
        stop: tokens that end an answer; they are not part of it.
        at_once: rows answered at a time; all of them where 0.

    Returns:
        Token ids of each answer.
    """
    places = at_once or len(rows)
    answers: list[list[int]] = [[] for _ in rows]
    room = [min(max_new_tokens, model.max_length - len(row)) for row in rows]
    batch: DecodingBatch | None = None
    alive: list[int] = []
    begun = 0
    while begun < len(rows) or alive:
        free = places - len(alive)
        if begun < len(rows) and (batch is None or (2 * free >= places and batch.takes_rows) or not alive):
            taken = list(range(begun, min(begun + free, len(rows))))
            fresh = prefill(model, [rows[row] for row in taken], [inputs[row] for row in taken], cached=True)
            if batch is not None and batch.takes_rows:
                batch.add(fresh)
            else:
                batch = decoding_batch(model, fresh, min(places, len(rows)), max_new_tokens)
            alive += taken
            begun += len(taken)
        assert batch is not None
        going: list[int] = []
        for index, (row, token) in enumerate(zip(alive, batch.next_tokens(), strict=True)):
            if token in stop:
                continue
            answers[row].append(token)
            if len(answers[row]) < room[row]:
                going.append(index)
        if len(going) < len(alive):
            alive = [alive[index] for index in going]
            batch.keep(going)
        if alive:
            batch.step([answers[row][-1] for row in alive])
    return answers


def decoding_batch(model: ModelAdapter, filled: PrefillState, rows: int, new_tokens: int) -> DecodingBatch:
    """The first rows of a batch: on a GPU with a cache of fixed size where the model allows it.

    Args:
        model: the model.
        filled: the rows after their prompts.
        rows: most rows at a time.
        new_tokens: most tokens of an answer.
    """
    if model.device.type == "cuda" and can_join(filled.cache) and model.fixed_cache is not False:
        from priorkit.inference.decoding.fixed_cache import FixedBatch, can_fix

        model.fixed_cache = model.fixed_cache or can_fix(model)
        if model.fixed_cache:
            return FixedBatch(model, filled, rows, new_tokens)
    return GrowingBatch(model, filled)
