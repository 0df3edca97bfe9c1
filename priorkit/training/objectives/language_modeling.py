"""Objective of pretraining: next-token prediction on the rows of a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from priorkit.data.corpus.reader import Corpus
from priorkit.models.kernels.cross_entropy import (
    IGNORE,
    Labeled,
    count_targets,
    labeled_positions,
    output_head,
    token_loss,
)
from priorkit.models.kernels.documents import Boundaries, document_boundaries, document_options
from priorkit.training.objectives.base import Loss


def padding_mask(ids_BT: Tensor, pad_token_id: int, ends_document: bool) -> Tensor:
    """The padding at the end of rows, bool ``[batch, time]``.

    Args:
        ids_BT: token ids.
        pad_token_id: fills a row.
        ends_document: whether the same token also ends documents, as with tokenizers without a padding token;
            the first one of the run then belongs to the last document and has loss.
    """
    run = (ids_BT == pad_token_id).flip(-1).long().cumprod(dim=-1).flip(-1).bool()
    if ends_document:
        run[:, 1:] &= run[:, :-1].clone()
        run[:, 0] = False
    return run


class CausalLMWithLoss(nn.Module):
    """A causal LM with its loss in one forward pass, as sharding needs.

    Args:
        model: a causal LM of transformers.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        document_ids: Tensor | None = None,
        boundaries: Boundaries | None = None,
        labeled: Labeled | None = None,
    ) -> Tensor:
        """Summed cross-entropy of the next token.

        Args:
            input_ids, labels: int64 ``[batch, time]``; ``IGNORE`` for positions without loss.
            document_ids: int64 ``[batch, time]``; attention stays within equal numbers; None for the full row.
            boundaries: of the documents; found here where they are not given, which waits for a GPU.
            labeled: where labels are; likewise.
        """
        options: dict[str, Any] = {}
        if document_ids is not None:
            boundaries = document_boundaries(document_ids) if boundaries is None else boundaries
            text = self.model.config.get_text_config()
            options = document_options(document_ids, boundaries, text._attn_implementation, self.model.dtype)
        decoder = self.model.get_decoder()
        hidden = decoder(input_ids=input_ids, use_cache=False, **options).last_hidden_state
        return token_loss(hidden, labels, output_head(self.model), labeled)


class CausalLMObjective:
    """Mean cross-entropy of the next token over the rows of a corpus.

    Args:
        module: the model with its loss.
        corpus: the rows.
        pad_token_id: the token that fills padded rows and has no loss; None where rows are full.
        end_token_id: the token that ends the corpus's documents.
        within_documents: whether attention stays within a document; the first token of each is then
            not predicted, as it has no context.
    """

    unit = "tokens"

    def __init__(
        self,
        module: CausalLMWithLoss,
        corpus: Corpus,
        pad_token_id: int | None,
        end_token_id: int | None = None,
        within_documents: bool = False,
    ) -> None:
        self.module: nn.Module = module
        self._corpus, self._pad_token_id = corpus, pad_token_id
        self._within_documents = within_documents
        self._pad_ends_documents = pad_token_id == end_token_id

    def __len__(self) -> int:
        return len(self._corpus)

    def sample(self, index: int, position: int) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """A row of token ids, and each token's document number where attention stays within documents."""
        documents = self._corpus.document_ids(index) if self._within_documents else None
        return self._corpus.row(index), documents

    def collate(
        self, samples: Sequence[tuple[NDArray[np.int64], NDArray[np.int64] | None]]
    ) -> dict[str, Any]:
        """Token ids and labels ``[batch, time]``, and where the labels are.

        Also document numbers and boundaries where attention stays within documents.
        """
        ids = torch.from_numpy(np.stack([row for row, _ in samples]))
        labels = ids
        if self._pad_token_id is not None:
            labels = ids.masked_fill(padding_mask(ids, self._pad_token_id, self._pad_ends_documents), IGNORE)
        numbers = [documents for _, documents in samples if documents is not None]
        if not numbers:
            return {"input_ids": ids, "labels": labels, "labeled": labeled_positions(labels)}
        documents = torch.from_numpy(np.stack(numbers))
        labels = labels.clone()
        labels[:, 1:][documents[:, 1:] != documents[:, :-1]] = IGNORE
        return {
            "input_ids": ids,
            "labels": labels,
            "labeled": labeled_positions(labels),
            "document_ids": documents,
            "boundaries": document_boundaries(documents),
        }

    def weight(self, batch: dict[str, Any]) -> int:
        """The number of predicted tokens."""
        return count_targets(batch["labels"])

    def loss(self, batch: dict[str, Any]) -> Loss:
        """Summed cross-entropy."""
        return Loss(self.module(**batch))

    def learning_rate_scale(self, name: str) -> float:
        """All parameters have the same learning rate."""
        return 1.0
