"""The vision aggregator: features of several depths joined for region-level tasks.

    B(X; Y) = FFN(XAttn(Attn(X), Y)),      V = B2(B1(V_i; V_j); V_k)

``V_i`` is the deepest feature and gives the queries, ``V_j`` and ``V_k`` are shallower. Each block is a
post-norm BERT layer with cross-attention (released code), attention is bidirectional, the output
projections of all residual branches start at zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from priorkit.architectures.lion.modeling.configuration import LionConfig

LAYER_NORM_EPS = 1e-12


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero: the last of a residual branch."""

    def reset(self) -> None:
        """Zero weight and bias."""
        init.zeros_(self.weight)
        init.zeros_(self.bias)


class Attention(nn.Module):
    """Multi-head attention without a mask, from ``x`` to ``y``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = ZeroLinear(width, width)

    def forward(self, x_NSC: Tensor, y_NTC: Tensor) -> Tensor:
        """``[batch, positions of x, width]``."""
        query, key, value = self.query(x_NSC), self.key(y_NTC), self.value(y_NTC)
        # [batch, heads, positions, width of a head]
        query, key, value = (
            states.unflatten(-1, (self.heads, -1)).transpose(1, 2) for states in (query, key, value)
        )
        dropout = self.dropout if self.training else 0.0
        if x_NSC.device.type == "cpu":
            # torch's fused attention has a slow backward pass on CPUs; see models/kernels/attention.py.
            scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            mixed = nn.functional.dropout(scores.softmax(-1), dropout, self.training) @ value
        else:
            mixed = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, cross-attention to a shallower layer, feed-forward; each with a residual.

    It starts as three LayerNorms of its input.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.up, self.down = nn.Linear(width, ffn), ZeroLinear(ffn, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=LAYER_NORM_EPS) for _ in range(3)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_NSC: Tensor, y_NTC: Tensor) -> Tensor:
        """``[batch, positions of x, width]``."""
        first, second, third = self.norms
        hidden = first(x_NSC + self.dropout(self.self_attention(x_NSC, x_NSC)))
        hidden = second(hidden + self.dropout(self.cross_attention(hidden, y_NTC)))
        wide = nn.functional.gelu(self.up(hidden))
        return third(hidden + self.dropout(self.down(wide)))


class VisionAggregator(nn.Module):
    """Two blocks, a LayerNorm and an MLP to the language model's width."""

    def __init__(self, config: LionConfig) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        shape = (width, config.aggregator_heads, config.aggregator_ffn, config.dropout)
        self.blocks = nn.ModuleList([Block(*shape), Block(*shape)])
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, config.aggregator_mlp)
        self.down = nn.Linear(config.aggregator_mlp, config.text_config.hidden_size)

    def forward(self, deep_NSC: Tensor, middle_NSC: Tensor, shallow_NSC: Tensor) -> Tensor:
        """Visual tokens ``[images, positions, width of the language model]``.

        Args:
            deep_NSC: raw output of the deepest block, ``[images, positions, width]``, class token kept.
            middle_NSC: of a shallower block.
            shallow_NSC: of the shallowest.
        """
        first, second = self.blocks
        joined = self.norm(second(first(deep_NSC, middle_NSC), shallow_NSC))
        return self.down(nn.functional.gelu(self.up(joined)))

    @torch.no_grad()
    def rescale(self, factor: Tensor) -> None:
        """Multiply the visual tokens by a factor."""
        self.down.weight.mul_(factor)
        self.down.bias.mul_(factor)
