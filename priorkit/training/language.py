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
            labels = ids.masked_fill(ids == self._pad_token_id, IGNORE)
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
