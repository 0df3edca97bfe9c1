"""Objective of pretraining: next-token prediction on the rows of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from priorkit.data.corpus import Corpus
from priorkit.models.loss import IGNORE, count_targets, token_loss
from priorkit.training.objective import Loss


def padding(ids_BT: Tensor, pad_token_id: int, ends_document: bool) -> Tensor:
    """Where rows are filled up: the run of padding at their end, bool ``[batch, time]``.

    Args:
        ids_BT: token ids.
        pad_token_id: what fills a row.
        ends_document: whether the same token ends documents too, as with tokenizers that have none of
            their own for padding; the first of the run is then the last document's and carries loss.
    """
    run = (ids_BT == pad_token_id).flip(-1).long().cumprod(dim=-1).flip(-1).bool()
    if ends_document:
        run[:, 1:] &= run[:, :-1].clone()
        run[:, 0] = False
    return run


class LanguageObjective:
    """Mean cross-entropy of the next token over the rows of a corpus.

    Args:
        model: a causal LM of transformers.
        corpus: the rows.
        pad_token_id: the token that fills padded rows and carries no loss; None where rows are full.
    """

    unit = "tokens"

    def __init__(self, model: Any, corpus: Corpus, pad_token_id: int | None) -> None:
        self.module: nn.Module = model
        self._model = model
        self._corpus = corpus
        self._pad_token_id = pad_token_id

    def __len__(self) -> int:
        return len(self._corpus)

    def sample(self, index: int, position: int) -> NDArray[np.int64]:
        """A row of token ids."""
        return self._corpus.row(index)

    def collate(self, samples: Sequence[NDArray[np.int64]]) -> dict[str, Tensor]:
        """Token ids and labels, ``[batch, time]``."""
        ids = torch.from_numpy(np.stack(samples))
        labels = ids
        if self._pad_token_id is not None:
            ends_document = self._pad_token_id == self._model.config.eos_token_id
            labels = ids.masked_fill(padding(ids, self._pad_token_id, ends_document), IGNORE)
        return {"input_ids": ids, "labels": labels}

    def weight(self, batch: dict[str, Tensor]) -> int:
        """The number of predicted tokens."""
        return count_targets(batch["labels"])

    def loss(self, batch: dict[str, Tensor]) -> Loss:
        """Summed cross-entropy."""
        hidden = self._model.get_decoder()(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
        return Loss(token_loss(hidden, batch["labels"], self._model.get_output_embeddings()))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters learn at the same rate."""
        return 1.0
