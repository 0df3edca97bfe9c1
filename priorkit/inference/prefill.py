"""The first pass over a batch of prompts; what prompts have in common passes the model once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from priorkit.core.errors import is_out_of_memory
from priorkit.inference.prompt_inputs import PromptInputs

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter

WORTH_SHARING = 16
"""Tokens that a common beginning must save per row before it gets a separate pass."""


@dataclass
class PrefillState:
    """A batch after its prompts.

    Attributes:
        logits: of the last position, ``[batch, vocabulary]``.
        cache: keys and values; None if it was not requested.
        mask: ``[batch, time]`` int64, 0 at padding; what the cache holds.
    """

    logits: Tensor
    cache: Any
    mask: Tensor

    def select(self, rows: Sequence[int], device: torch.device) -> None:
        """Keep some rows, or repeat them."""
        index = torch.tensor(rows)
        self.cache.batch_select_indices(index.to(device))
        self.mask = self.mask[index]
        self.logits = self.logits[index.to(device)]

    def trim(self) -> None:
        """Drop the positions at the left that no row uses."""
        unused = int((self.mask.sum(0).cumsum(0) == 0).sum())
        if unused:
            self.mask = self.mask[:, unused:]
            for layer in self.cache.layers:
                layer.keys = layer.keys[..., unused:, :]
                layer.values = layer.values[..., unused:, :]


def short_prompts(model: ModelAdapter) -> PrefillState:
    """Two prompts of different lengths, on which it is found out what a model allows."""
    return prefill(model, [[1, 2, 3], [2, 1]], [PromptInputs(()), PromptInputs(())], cached=True)


@torch.no_grad()
def takes_own_masks(model: ModelAdapter, attempt: Callable[[], bool]) -> bool:
    """Whether an attempt to give a model masks and positions of ours succeeds.

    It must take positions and have torch's attention, whose masks are bool; its errors mean no.

    Args:
        model: the model.
        attempt: whether what it computes is right.

    Raises:
        RuntimeError: memory ran out.
    """
    if not model.takes_positions or model.model.config.get_text_config()._attn_implementation != "sdpa":
        return False
    try:
        return attempt()
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return False


def can_join(cache: Any) -> bool:
    """Whether a cache keeps all keys and values as they come, so that rows of two caches can be put together."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    return type(cache) is DynamicCache and all(
        type(layer) is DynamicLayer for layer in getattr(cache, "layers", (None,))
    )


def join(first: PrefillState, second: PrefillState) -> PrefillState:
    """The rows of both batches as one; the shorter one is padded on the left."""
    first.trim()
    length = max(first.mask.shape[1], second.mask.shape[1])
    for layer, other in zip(first.cache.layers, second.cache.layers, strict=True):
        layer.keys = torch.cat([_longer(part.keys, length) for part in (layer, other)])
        layer.values = torch.cat([_longer(part.values, length) for part in (layer, other)])
    mask = torch.cat(
        [torch.nn.functional.pad(part.mask, (length - part.mask.shape[1], 0)) for part in (first, second)]
    )
    return PrefillState(torch.cat([first.logits, second.logits]), first.cache, mask)


def _longer(values: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, 0, length - values.shape[-2], 0))


def prefill(
    model: ModelAdapter, rows: Sequence[Sequence[int]], inputs: Sequence[PromptInputs], *, cached: bool
) -> PrefillState:
    """Read all prompts of a batch.

    Prompts about the same image begin alike up to the image's last position; prompts without images may
    share their instruction. Such beginnings pass the model once, and their keys and values are repeated.

    Args:
        model: the model.
        rows: token ids of each prompt.
        inputs: each prompt's images, question and task type.
        cached: whether the keys and values are needed afterwards.
    """
    shared = _shared_beginnings(model, rows, inputs)
    if shared is None:
        ids, mask, positions = pad_left(rows)
        logits, cache = model.forward(ids, mask, positions, keep=1, inputs=inputs, use_cache=cached)
        return PrefillState(logits[:, -1], cache, mask)
    lengths, number, first = shared
    ids, mask, positions = pad_left([rows[index][: lengths[index]] for index in first])
    first_inputs = [inputs[index] for index in first]
    _, cache = model.forward(ids, mask, positions, keep=1, inputs=first_inputs, use_cache=True)
    if number != list(range(len(first))):
        cache.batch_select_indices(torch.tensor(number).to(model.device))
    before = mask[torch.tensor(number)]
    ids, mask, _ = pad_left([row[length:] for row, length in zip(rows, lengths, strict=True)])
    positions = (mask.cumsum(1) - 1).clamp(min=0) + before.sum(1, keepdim=True)
    full_mask = torch.cat([before, mask], dim=1)
    logits, cache = model.forward(ids, full_mask, positions, keep=1, cache=cache, use_cache=True)
    return PrefillState(logits[:, -1], cache, full_mask)


def _shared_beginnings(
    model: ModelAdapter, rows: Sequence[Sequence[int]], inputs: Sequence[PromptInputs]
) -> tuple[list[int], list[int], list[int]] | None:
    """Which rows begin alike: length of each row's beginning, its number, the first row of each number.

    None where sharing would not save a good part of the work.
    """
    # A sliding window would count the padding between a beginning and what follows it.
    if model.capabilities.questions or not model.sees_all(max(map(len, rows))):
        return None
    keys: list[Hashable] = [prompt.key for prompt in inputs]
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    lengths = [0] * len(rows)
    number = [0] * len(rows)
    first: list[int] = []
    saved = 0
    for members in groups.values():
        common = _common([rows[index] for index in members])
        if inputs[members[0]].images and model.image_end(rows[members[0]]) > common:
            return None
        saved += common * (len(members) - 1)
        for index in members:
            lengths[index], number[index] = common, len(first)
        first.append(members[0])
    worth = saved >= WORTH_SHARING * len(rows) and min(lengths) > 0
    return (lengths, number, first) if worth else None


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the common beginning; at least one token of every row is left over."""
    low, high = min(map(tuple, rows)), max(map(tuple, rows))
    limit = min(map(len, rows)) - 1
    for index in range(limit):
        if low[index] != high[index]:
            return index
    return limit


def pad_left(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and positions ``[batch, time]`` (int64), padded on the left."""
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[index, length - len(row) :] = 1
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)
