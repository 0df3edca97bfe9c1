"""Softmax attention with a gradient of its own, for CPUs: the kernel of short rows.

Composed of torch's operations, attention in bf16 keeps weights in fp32 and in bf16, and scales, masks and casts in passes
over memory of their own. Here the scale is a factor of the product, the mask is set in place, and what is kept are
queries, keys, values and weights in the dtype of the products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def softmax_attention(
    query_NTD: Tensor, key_NSD: Tensor, value_NSD: Tensor, scale: float, hidden: Tensor | None = None
) -> Tensor:
    """``softmax(scale * query @ key^T) @ value``, without dropout.

    Args:
        query_NTD: ``[rows, queries, head_dim]``.
        key_NSD, value_NSD: ``[rows, keys, head_dim]``, of the same dtype.
        scale: of the scores.
        hidden: the keys that a query must not see, bool, broadcastable to ``[rows, queries, keys]``; every query sees
            at least one.

    Returns:
        ``[rows, queries, head_dim]``.
    """
    return _SoftmaxAttention.apply(query_NTD, key_NSD, value_NSD, scale, hidden)  # type: ignore[no-any-return]


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """``scale * left @ right`` in one pass."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)


class _SoftmaxAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, hidden: Tensor | None
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):  # it would compute the softmax in fp32
            scores = _scaled_product(query, key.transpose(1, 2), scale)
            if hidden is not None:
                scores.masked_fill_(hidden, torch.finfo(scores.dtype).min)
            weights = scores.softmax(dim=-1)
            ctx.save_for_backward(query, key, value, weights)
            ctx.scale = scale
            return weights @ value

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, weights = ctx.saved_tensors
        (gradient,) = gradients
        with torch.autocast(query.device.type, enabled=False):
            of_value = weights.transpose(1, 2) @ gradient
            of_weights = gradient @ value.transpose(1, 2)
            # Hidden keys have weight 0, and so gradient 0.
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_query = _scaled_product(of_scores, key, ctx.scale)
            of_key = _scaled_product(of_scores.transpose(1, 2), query, ctx.scale)
        return of_query, of_key, of_value, None, None
