"""Plain softmax attention, a block of queries at a time: the kernel on CPUs, and wherever no other one serves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from priorkit.models.kernels.softmax_attention import softmax_attention

BLOCK_ROWS = 256
"""Queries of one block. Scores of keys that come after a block are never computed: at a length of two
blocks a quarter of all products is saved, at many blocks half."""


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
    fused = (
        documents is None
        and not dropout
        and query_BHTD.device.type == "cpu"
        and not torch.compiler.is_compiling()
    )
    outputs: list[Tensor] = []
    for first in range(0, length, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, length)
        stop = last if causal else length
        start = max(0, first - window + 1) if window and causal else 0
        query, key, value = (
            query_BHTD[:, :, first:last],
            key_BHTD[:, :, start:stop],
            value_BHTD[:, :, start:stop],
        )
        hidden = _masked(first, last, start, stop, documents, causal, window, query.device)
        if fused:
            parts = (part.flatten(0, 1) for part in (query, key, value))
            outputs.append(softmax_attention(*parts, scale, hidden).unflatten(0, query.shape[:2]))
            continue
        scores = query * scale @ key.transpose(-2, -1)
        if hidden is not None:
            # The lowest finite number instead of -inf: torch's gradient of a softmax over -inf is 0 * inf.
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        weights = nn.functional.dropout(weights, p=dropout, training=dropout > 0)
        outputs.append(weights @ value)
    return torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]


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
