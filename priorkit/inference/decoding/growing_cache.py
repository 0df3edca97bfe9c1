"""Decoding with a cache that grows, one token per row at a time, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from priorkit.inference.prefill import PrefillState, can_join, join

if TYPE_CHECKING:
    from priorkit.inference.model_adapter import ModelAdapter


class DecodingBatch(Protocol):
    """Rows that are being answered."""

    @property
    def takes_rows(self) -> bool:
        """Whether further rows can be added while others are unfinished."""
        ...

    def add(self, fresh: PrefillState) -> None:
        """Add rows after the others."""
        ...

    def next_tokens(self) -> list[int]:
        """Each row's most probable next token; waits for the device."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        ...

    def step(self, tokens: Sequence[int]) -> None:
        """Feed each row the token that :meth:`next_tokens` gave it."""
        ...


class GrowingBatch:
    """Rows whose keys and values are appended to transformers' own cache.

    Args:
        model: the model.
        filled: the first rows after their prompts.
    """

    def __init__(self, model: ModelAdapter, filled: PrefillState) -> None:
        self._model, self._filled = model, filled

    @property
    def takes_rows(self) -> bool:
        """Whether further rows can be added while others are unfinished."""
        return can_join(self._filled.cache)

    def add(self, fresh: PrefillState) -> None:
        """Add rows after the others."""
        self._filled = join(self._filled, fresh) if len(self._filled.mask) else fresh

    @property
    def logits(self) -> Tensor:
        """Of each row's last position, ``[rows, vocabulary]``."""
        return self._filled.logits

    def next_tokens(self) -> list[int]:
        """Each row's most probable next token; waits for the device."""
        return self._filled.logits.argmax(-1).tolist()

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        if rows:
            self._filled.select(rows, self._model.device)
        else:
            self._filled.mask = self._filled.mask[:0]

    def step(self, tokens: Sequence[int]) -> None:
        """Feed each row the token that :meth:`next_tokens` gave it."""
        fed = torch.tensor(tokens)[:, None]
        positions = self._filled.mask.sum(1, keepdim=True)
        mask = torch.cat([self._filled.mask, torch.ones_like(fed)], dim=1)
        logits, cache = self._model.forward(
            fed, mask, positions, keep=1, cache=self._filled.cache, use_cache=True
        )
        self._filled = PrefillState(logits[:, -1], cache, mask)
