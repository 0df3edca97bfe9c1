"""Loss on held-out text while training goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from priorkit.core import distributed
from priorkit.core.runtime import Runtime, world_size
from priorkit.models.kernels.cross_entropy import IGNORE, count_targets

EVALUATED_TOKENS = 1 << 18
"""Tokens of a source that are evaluated; the first ones, so that every evaluation sees the same."""


class ValidationText:
    """The first rows of a held-out source.

    Args:
        documents: its texts.
        tokenizer: the corpus's.
        length: tokens in a row.
        batch_size: rows in a forward pass.
        within_documents: whether attention stays within a document, as in training; the first token of
            each is then not predicted.
    """

    def __init__(
        self,
        documents: Iterable[str],
        tokenizer: Any,
        length: int,
        batch_size: int,
        within_documents: bool = False,
    ) -> None:
        ids: list[int] = []
        begins: list[int] = []
        self._bytes = 0
        for text in documents:
            begins.append(len(ids))
            # Text that reads like a special token is text, as in the corpus.
            found = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            ids.extend([*found, tokenizer.eos_token_id])
            self._bytes += len(text.encode())
            if len(ids) >= EVALUATED_TOKENS:
                break
        rows = -(-len(ids) // length)
        self._ids_RT = torch.full((rows, length), tokenizer.eos_token_id)
        self._ids_RT.view(-1)[: len(ids)] = torch.tensor(ids)
        self._labels_RT = self._ids_RT.clone()
        self._labels_RT.view(-1)[len(ids) :] = IGNORE
        self._tokens = len(ids)
        self._documents_RT: torch.Tensor | None = None
        if within_documents:
            self._labels_RT.view(-1)[begins] = IGNORE
            fresh = torch.zeros(rows * length, dtype=torch.int64)
            fresh[begins] = 1
            fresh[len(ids) : len(ids) + 1] = 1  # what fills the last row
            self._documents_RT = fresh.cumsum(0).view(rows, length)
        self._batch_size = batch_size

    @torch.no_grad()
    def evaluate(self, module: nn.Module, runtime: Runtime) -> dict[str, float]:
        """``loss`` per token, in nats, and ``bits_per_byte``; rows are shared among the processes."""
        was_training = module.training
        module.eval()
        own = distributed.share(len(self._ids_RT))
        most = -(-len(self._ids_RT) // world_size())
        sums = torch.zeros(2, dtype=torch.float64)
        # As many passes in every process: where they share weights, each pass is an exchange among all.
        for start in range(own.start, own.start + most, self._batch_size):
            stop = min(start + self._batch_size, own.stop)
            rows = slice(start, stop) if start < own.stop else slice(0, 1)
            ids, labels = self._ids_RT[rows], self._labels_RT[rows]
            documents = None if self._documents_RT is None else self._documents_RT[rows]
            if start >= own.stop:
                labels = torch.full_like(labels, IGNORE)
            with runtime.autocast():
                loss = module(
                    *(
                        None if value is None else value.to(runtime.device)
                        for value in (ids, labels, documents)
                    )
                )
            sums += torch.tensor([float(loss), count_targets(labels)], dtype=torch.float64)
        distributed.reshard(module)
        total, tokens = distributed.total(sums.to(runtime.device)).tolist()
        module.train(was_training)
        # The first token of a row or document is not predicted; its share of the bytes is left out as well.
        seen = self._bytes * tokens / self._tokens
        return {"loss": total / tokens, "bits_per_byte": total / seen / math.log(2)}


def validation_metrics(
    sources: Sequence[tuple[str, ValidationText]], module: nn.Module, runtime: Runtime
) -> dict[str, float]:
    """The figures of all sources, as ``eval/NAME/loss`` and ``eval/NAME/bits_per_byte``."""
    return {
        f"eval/{name}/{key}": value
        for name, source in sources
        for key, value in source.evaluate(module, runtime).items()
    }
