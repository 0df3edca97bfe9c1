"""Cross-entropy over a vocabulary without storing all logits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""The label of positions without loss."""

CHUNK_TOKENS = 1024
"""Tokens whose logits are in memory at a time on a CPU; fewer save memory, more save kernel launches."""

GPU_LOGITS_SHARE = 64
"""On a GPU the fp32 logits of a chunk take at most its memory divided by this."""

MOST_CHUNK_TOKENS = 1 << 14
"""Largest chunk on a GPU; more tokens no longer make products faster."""


Labeled = Tensor | Literal["all"]
"""Where a batch has labels: int64 ``[labels]``, places among its ``batch * (time - 1)`` predicted positions, row by
row; or ``all`` of them."""


def labeled_positions(labels_BT: Tensor) -> Labeled:
    """Where a batch has labels. Batches are collated with it: labels on a GPU must be waited for.

    Args:
        labels_BT: int64 ``[batch, time]``, ``IGNORE`` for no loss.
    """
    labeled = labels_BT[:, 1:].reshape(-1) != IGNORE
    return "all" if bool(labeled.all()) else labeled.nonzero()[:, 0]


def token_loss(
    hidden_BTC: Tensor, labels_BT: Tensor, head: nn.Module, labeled: Labeled | None = None
) -> Tensor:
    """Summed next-token cross-entropy.

    Args:
        hidden_BTC: last hidden states, ``[batch, time, width]``.
        labels_BT: int64 ``[batch, time]``; the label *of* a position, ``IGNORE`` for no loss.
            The shift by one is done here.
        head: maps width to vocabulary.
        labeled: from :func:`labeled_positions`; found here where it is not given.

    Returns:
        Scalar fp32: the sum over labeled positions. The head is computed only there, in chunks. For a plain
        linear head gradients are computed along with the loss, so that no logits are kept or computed
        twice; any other head's logits are recomputed in the backward pass.
    """
    targets = labels_BT[:, 1:].reshape(-1)
    hidden_NC = hidden_BTC[:, :-1].reshape(-1, hidden_BTC.shape[-1])
    labeled = labeled_positions(labels_BT) if labeled is None else labeled
    if isinstance(labeled, Tensor):
        hidden_NC, targets = hidden_NC[labeled], targets[labeled]
    if type(head) is nn.Linear and head.bias is None and torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(hidden_NC, head.weight, targets)
    total = hidden_BTC.new_zeros((), dtype=torch.float32)
    size = chunk_tokens(hidden_BTC.device, getattr(head, "out_features", DEFAULT_VOCABULARY))
    for start in range(0, max(1, len(targets)), size):
        stop = start + size
        chunk = (hidden_NC[start:stop], targets[start:stop], head)
        total = total + checkpoint(_chunk_loss, *chunk, use_reentrant=False)
    return total


DEFAULT_VOCABULARY = 1 << 17
"""Vocabulary that is assumed where a head does not say its own."""


def chunk_tokens(device: torch.device, vocabulary: int) -> int:
    """Tokens whose logits are computed at a time.

    Each chunk adds to an fp32 gradient of the head's size, which costs as much memory traffic as the product of a
    thousand tokens; so a GPU with much memory takes more at a time.
    """
    if device.type != "cuda":
        return CHUNK_TOKENS
    share = _gpu_memory(device) // GPU_LOGITS_SHARE
    return min(MOST_CHUNK_TOKENS, max(CHUNK_TOKENS, share // (4 * vocabulary)))


@lru_cache(maxsize=8)
def _gpu_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def _chunk_loss(hidden_NC: Tensor, targets_N: Tensor, head: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(head(hidden_NC).float(), targets_N, reduction="sum")


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of ``hidden @ weight.T`` with gradients computed chunk by chunk in the forward pass.

    d loss / d logits = softmax(logits) - onehot(target): it is known as soon as the logits are. Products
    use autocast's dtype, sums over tokens fp32.
    """

    @staticmethod
    def forward(ctx: Any, hidden_NC: Tensor, weight_VC: Tensor, targets_N: Tensor) -> Tensor:
        kind = hidden_NC.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_NC.dtype
        weight = weight_VC.to(precision)
        by_hidden, by_weight, _ = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_NC) if by_hidden else None
        grad_weight = torch.zeros_like(weight_VC, dtype=torch.float32) if by_weight else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_NC.device)
        size = chunk_tokens(hidden_NC.device, len(weight_VC))
        for start in range(0, len(targets_N), size):
            hidden = hidden_NC[start : start + size].to(precision)
            targets = targets_N[start : start + size, None]
            logits = (hidden @ weight.T).float()
            log_sums = logits.logsumexp(dim=-1, keepdim=True)
            total += (log_sums - logits.gather(1, targets)).sum()
            grad_logits = logits.sub_(log_sums).exp_()
            grad_logits.scatter_add_(1, targets, torch.full_like(log_sums, -1.0))
            grad_logits = grad_logits.to(precision)
            if grad_hidden is not None:
                grad_hidden[start : start + size] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight_VC.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        (scale,) = grads
        return (
            None if grad_hidden is None else grad_hidden * scale.to(grad_hidden.dtype),
            None if grad_weight is None else grad_weight * scale.to(grad_weight.dtype),
            None,
        )


def count_targets(labels_BT: Tensor) -> int:
    """The number of positions that the loss sums over; for labels in main memory."""
    return int((labels_BT[:, 1:] != IGNORE).sum())


class _ScaledHead(nn.Module):
    """A head whose logits are scaled, then capped."""

    def __init__(self, head: nn.Module, scale: float, cap: float | None) -> None:
        super().__init__()
        self._head, self._scale, self._cap = head, scale, cap

    def forward(self, hidden: Tensor) -> Tensor:
        logits = self._head(hidden) * self._scale
        return logits if self._cap is None else self._cap * (logits / self._cap).tanh()


def output_head(model: Any) -> nn.Module:
    """The module that maps a model's last hidden states to its logits.

    In most families it is a linear layer; Cohere's logits are multiplied (``logit_scale``), Granite's divided
    (``logits_scaling``), Gemma 2's softly capped (``final_logit_softcapping``). transformers' LLaVA does none
    of this, whatever its language model is.
    """
    head, config = model.get_output_embeddings(), model.config
    if config.get_text_config() is not config:
        return head
    factor, divisor = (getattr(config, name, None) or 1.0 for name in ("logit_scale", "logits_scaling"))
    cap = getattr(config, "final_logit_softcapping", None)
    return head if factor == divisor and cap is None else _ScaledHead(head, factor / divisor, cap)
