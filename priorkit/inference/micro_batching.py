"""How many rows pass a model at a time: on a processor as many as its cache has room for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter

CACHED_BYTES = 2 << 20
"""What one thread of a processor works on at a time stays in its cache. Texts scored on one thread, sixteen
requests together or cut by this: random Llama of width 256 with 6 layers 203 and 164 microseconds a token,
of width 128 with 4 layers and 4,096 words 121 and 81; of width 64 no difference."""

LEAST_TOKENS = 256
"""Tokens of a pass, at least: below, reading the weights takes longer than multiplying by them."""


def micro_batches(model: ModelAdapter, lengths: Sequence[int]) -> Iterator[range]:
    """Places of the rows that go together, in order; on a GPU all of them.

    Args:
        model: the model.
        lengths: tokens of each row; rows of a pass are padded to the longest.
    """
    most = math.inf
    if model.device.type == "cpu":
        most = max(LEAST_TOKENS, CACHED_BYTES * torch.get_num_threads() // (4 * model.widest))
    start, longest = 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > start and (index + 1 - start) * longest > most:
            yield range(start, index)
            start, longest = index, length
    yield range(start, len(lengths))
