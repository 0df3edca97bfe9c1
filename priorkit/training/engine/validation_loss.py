"""Validation loss: the loss on held-out text during training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn

from priorkit.core.process import distributed
from priorkit.core.process.runtime import Runtime, world_size
from priorkit.data.text.document_encoder import document_encoder
from priorkit.data.text.fast_encoder import FastEncodingDiffers
from priorkit.models.kernels.cross_entropy import IGNORE, count_targets, labeled_positions
from priorkit.models.kernels.documents import document_boundaries
from priorkit.training.objectives.base import to_device

logger = logging.getLogger(__name__)

EVALUATED_TOKENS = 1 << 18
"""Tokens of a source that are evaluated: the first ones, so that all evaluations use the same."""


class ValidationText:
    """The first rows of a held-out text.

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
        ids, starts, self._bytes = _first_tokens(documents, tokenizer)
        rows = -(-len(ids) // length)
        self._ids_RT = torch.full((rows, length), tokenizer.eos_token_id)
        self._ids_RT.view(-1)[: len(ids)] = torch.tensor(ids)
        self._labels_RT = self._ids_RT.clone()
        self._labels_RT.view(-1)[len(ids) :] = IGNORE
        self._tokens = len(ids)
        self._documents_RT: torch.Tensor | None = None
        if within_documents:
            self._labels_RT.view(-1)[starts] = IGNORE
            is_start = torch.zeros(rows * length, dtype=torch.int64)
            is_start[starts] = 1
            is_start[len(ids) : len(ids) + 1] = 1  # the padding of the last row
            self._documents_RT = is_start.cumsum(0).view(rows, length)
        self._batch_size = batch_size

    @torch.no_grad()
    def evaluate(self, module: nn.Module, runtime: Runtime) -> dict[str, float]:
        """``loss`` per token, in nats, and ``bits_per_byte``; rows are split among the processes."""
        was_training = module.training
        module.eval()
        local = distributed.share(len(self._ids_RT))
        rows_per_process = -(-len(self._ids_RT) // world_size())
        sums = torch.zeros(2, dtype=torch.float64)
        # The same number of passes in every process: with sharding each pass is a collective operation.
        for start in range(local.start, local.start + rows_per_process, self._batch_size):
            stop = min(start + self._batch_size, local.stop)
            rows = slice(start, stop) if start < local.stop else slice(0, 1)
            ids, labels = self._ids_RT[rows], self._labels_RT[rows]
            documents = None if self._documents_RT is None else self._documents_RT[rows]
            if start >= local.stop:
                labels = torch.full_like(labels, IGNORE)
            batch = {"input_ids": ids, "labels": labels, "labeled": labeled_positions(labels)}
            if documents is not None:
                batch |= {"document_ids": documents, "boundaries": document_boundaries(documents)}
            with runtime.autocast():
                loss = module(**to_device(batch, runtime.device))
            sums += torch.tensor([float(loss), count_targets(labels)], dtype=torch.float64)
        distributed.reshard(module)
        total, tokens = distributed.total(sums.to(runtime.device)).tolist()
        module.train(was_training)
        # The first token of a row or document is not predicted; its share of the bytes is left out as well.
        predicted_bytes = self._bytes * tokens / self._tokens
        return {"loss": total / tokens, "bits_per_byte": total / predicted_bytes / math.log(2)}


def _first_tokens(documents: Iterable[str], tokenizer: Any) -> tuple[list[int], list[int], int]:
    """The first :data:`EVALUATED_TOKENS` ids, where documents start in them, and the documents' bytes."""
    encoder, stream = document_encoder(tokenizer), iter(documents)
    read: list[str] = []

    def encoded(texts: Iterable[str]) -> tuple[list[int], list[int], int]:
        ids: list[int] = []
        starts: list[int] = []
        for text in texts:
            starts.append(len(ids))
            ids += [*encoder.flat_ids([text])[0].tolist(), tokenizer.eos_token_id]
            if len(ids) >= EVALUATED_TOKENS:
                break
        return ids, starts, sum(len(text.encode()) for text in read[: len(starts)])

    def remembered() -> Iterator[str]:
        for text in stream:
            read.append(text)
            yield text

    try:
        return encoded(remembered())
    except FastEncodingDiffers as difference:
        logger.info(f"  {difference}: not used")
        encoder.leave_fast()
        return encoded(chain(read[:], remembered()))


def validation_metrics(
    sources: Sequence[tuple[str, ValidationText]], module: nn.Module, runtime: Runtime
) -> dict[str, float]:
    """The metrics of all sources, as ``eval/NAME/loss`` and ``eval/NAME/bits_per_byte``."""
    return {
        f"eval/{name}/{key}": value
        for name, source in sources
        for key, value in source.evaluate(module, runtime).items()
    }
