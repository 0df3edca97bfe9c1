"""Plain softmax attention, a block of queries at a time: the kernel on CPUs, and wherever no other one serves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from priorkit.models.kernels.documents import document_positions

BLOCK_ROWS = 256
"""Queries of one block. Scores of keys that come after a block are never computed: at a length of two
blocks a quarter of all products is saved, at many blocks half."""

PACKED_BLOCK_ROWS = 128
"""Queries of one block where documents are packed: smaller blocks skip more keys of other documents."""


def attention_in_blocks(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    documents: Tensor | None,
    scale: float,
    dropout: float,
    causal: bool,
    window: int | None,
) -> Tensor:
    """Plain softmax attention, a block of queries at a time.

    Args:
        query_BHTD: ``[batch, heads, time, head_dim]``.
        key_BHTD, value_BHTD: of the same shape.
        documents: document numbers int64 ``[batch, 1, 1, time]``, or None.
        scale: of the scores.
        dropout: of the attention weights.
        causal: whether later tokens are masked.
        window: how many tokens a token attends to, itself included; None for all.

    Returns:
        ``[batch, heads, time, head_dim]``.
    """
    length = query_BHTD.shape[2]
    query_BHTD = query_BHTD * scale
    outputs: list[Tensor] = []
    first_visible = _first_visible(documents) if documents is not None and causal else None
    rows = BLOCK_ROWS if first_visible is None else PACKED_BLOCK_ROWS
    for first in range(0, length, rows):
        last = min(first + rows, length)
        stop = last if causal else length
        start = max(0, first - window + 1) if window and causal else 0
        if first_visible is not None:
            start = max(start, first_visible[first])
        scores = query_BHTD[:, :, first:last] @ key_BHTD[:, :, start:stop].transpose(-2, -1)
        hidden = _masked(first, last, start, stop, documents, causal, window, scores.device)
        if hidden is not None:
            # The lowest finite number instead of -inf: torch's gradient of a softmax over -inf is 0 * inf.
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value_BHTD.dtype)
        weights = nn.functional.dropout(weights, p=dropout, training=dropout > 0)
        outputs.append(weights @ value_BHTD[:, :, start:stop])
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


def _first_visible(documents: Tensor) -> list[int] | None:
    """For each position the first key that a token of any row may attend to; None on GPUs and while compiling.

    Keys before it are masked in every row, so their scores are never computed. Reading it from a GPU would wait for
    it, while compiling it would break the graph.
    """
    if documents.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    ids = documents[:, 0, 0]
    places = torch.arange(ids.shape[1], device=ids.device)
    return (places - document_positions(ids)).amin(dim=0).tolist()


def _masked(
    first: int,
    last: int,
    start: int,
    stop: int,
    documents: Tensor | None,
    causal: bool,
    window: int | None,
    device: torch.device,
) -> Tensor | None:
    """Mask of the keys ``start`` to ``stop`` that the queries ``first`` to ``last`` must not attend to."""
    hidden: Tensor | None = None
    if causal:
        rows = torch.arange(first, last, device=device)[:, None]
        columns = torch.arange(start, stop, device=device)[None, :]
        hidden = columns > rows
        if window:
            hidden = hidden | (columns <= rows - window)
    if documents is not None:
        others = documents[:, :, 0, first:last, None] != documents[:, :, 0, None, start:stop]
        hidden = others if hidden is None else others | hidden
    return hidden
