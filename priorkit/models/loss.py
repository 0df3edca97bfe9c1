"""Cross-entropy over a vocabulary without storing all logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""The label of positions that carry no loss."""

CHUNK_TOKENS = 2048
"""Tokens whose logits exist at one time; fewer save memory, more save launches."""


def token_loss(hidden_BTC: Tensor, labels_BT: Tensor, head: nn.Module) -> Tensor:
    """Summed next-token cross-entropy.

    Args:
        hidden_BTC: last hidden states, ``[batch, time, width]``.
        labels_BT: int64 ``[batch, time]``; the label *of* a position, ``IGNORE`` where there is none.
            The shift by one is done here.
        head: maps width to vocabulary.

    Returns:
        Scalar fp32: the sum over labelled positions. Only these pass the head, in chunks whose logits
        are recomputed in the backward pass.
    """
    targets = labels_BT[:, 1:].reshape(-1)
    wanted = targets != IGNORE
    hidden_NC = hidden_BTC[:, :-1].reshape(-1, hidden_BTC.shape[-1])
    if not bool(wanted.all()):
        hidden_NC, targets = hidden_NC[wanted], targets[wanted]
    if len(targets) <= CHUNK_TOKENS:
        return _chunk_loss(hidden_NC, targets, head)
    total = hidden_BTC.new_zeros((), dtype=torch.float32)
    for start in range(0, len(targets), CHUNK_TOKENS):
        stop = start + CHUNK_TOKENS
        total = total + checkpoint(
            _chunk_loss, hidden_NC[start:stop], targets[start:stop], head, use_reentrant=False
        )
    return total


def _chunk_loss(hidden_NC: Tensor, targets_N: Tensor, head: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(head(hidden_NC).float(), targets_N, reduction="sum")


def count_targets(labels_BT: Tensor) -> int:
    """How many positions the loss sums over."""
    return int((labels_BT[:, 1:] != IGNORE).sum())
