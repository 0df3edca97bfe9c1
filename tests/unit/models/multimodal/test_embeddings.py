"""Embeddings of images go into the marked positions, in order."""

from __future__ import annotations

import torch

from priorkit.models.multimodal.embeddings import replace_embeddings


def test_marked_positions_are_replaced_in_order() -> None:
    embeddings = torch.zeros(2, 3, 2, dtype=torch.bfloat16)
    positions = torch.tensor([[False, True, True], [True, False, False]])
    values = torch.arange(1.0, 7.0).view(3, 2)
    replaced = replace_embeddings(embeddings, positions, values)
    assert replaced.dtype == torch.bfloat16
    assert replaced.tolist() == [[[0, 0], [1, 2], [3, 4]], [[5, 6], [0, 0], [0, 0]]]
