"""The last block of a CLIP tower computed only at the pooled token, during training.

CLIP's feature comes from one token: the class token of an image, the end token of a text. The last block's
queries, output projection and MLP at all other tokens are not used, and neither are their gradients: a
seventh of the image tower's FLOPs at six layers, a fifth of the text tower's at four. Only keys and values
need every token. The result is identical; the other tokens of the last hidden state become zeros, so this
is for losses that read the pooled output or earlier layers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_PARTS = ("layer_norm1", "self_attn", "layer_norm2", "mlp")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


@contextmanager
def pooled_token_only(*models: Any) -> Generator[None]:
    """Within the context, compute the last blocks of these encoders only at the pooled token.

    Families other than CLIP and SigLIP, and towers with attention dropout, are unchanged.

    Args:
        models: dual encoders of transformers; do not copy them within the context.
    """
    undo = [restore for model in models for restore in _replace_last_blocks(model)]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def _replace_last_blocks(model: Any) -> list[Callable[[], None]]:
    """Replace the towers' last blocks; returns functions that restore them."""
    kind = model.config.model_type
    undo: list[Callable[[], None]] = []
    if kind == "clip":
        undo += _replace_forward(
            model.vision_model, lambda hidden: torch.zeros_like(hidden[:, 0, 0], dtype=torch.long)
        )
    if kind in ("clip", "siglip"):
        text = model.text_model
        end_positions: dict[str, Tensor] = {}

        def remember(module: nn.Module, arguments: Any, named: dict[str, Any]) -> None:
            ids = named["input_ids"] if "input_ids" in named else arguments[0]
            end_positions["current"] = _end_positions(text, ids, kind)

        done = _replace_forward(text, lambda hidden: end_positions["current"], causal=kind == "clip")
        if done:
            hook = text.register_forward_pre_hook(remember, with_kwargs=True)
            undo += [*done, hook.remove]
    return undo


def _end_positions(text: Any, ids: Tensor, kind: str) -> Tensor:
    """The position that the text tower pools, int64 ``[batch]``, as transformers computes it."""
    if kind == "siglip":
        return torch.full_like(ids[:, 0], ids.shape[1] - 1)
    end = text.config.eos_token_id
    return ids.argmax(dim=-1) if end == 2 else (ids == end).int().argmax(dim=-1)


def _replace_forward(
    tower: Any, position: Callable[[Tensor], Tensor], causal: bool = False
) -> list[Callable[[], None]]:
    blocks = getattr(getattr(tower, "encoder", None), "layers", None)
    if blocks is None or float(getattr(tower.config, "attention_dropout", 0.0)):
        return []
    block = blocks[-1]
    if not all(hasattr(block, name) for name in _PARTS) or not all(
        hasattr(block.self_attn, name) for name in _PROJECTIONS
    ):
        return []

    def forward(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return _forward_at(block, hidden_states, position(hidden_states), causal)

    block.forward = forward
    return [lambda: delattr(block, "forward")]


def _forward_at(block: Any, hidden: Tensor, position: Tensor, causal: bool) -> Tensor:
    """A transformer block at one position per row.

    Args:
        block: with norms before attention and MLP, as CLIP's.
        hidden: ``[batch, time, width]``.
        position: int64 ``[batch]``.
        causal: whether later tokens are masked; padding on the right then is too.

    Returns:
        ``[batch, time, width]``: the block's output at the positions, zero elsewhere.
    """
    attention = block.self_attn
    batch, time, width = hidden.shape
    heads = attention.num_heads
    rows = torch.arange(batch, device=hidden.device)
    normed = block.layer_norm1(hidden)
    query = attention.q_proj(normed[rows, position]).view(batch, heads, 1, -1)
    key, value = (
        projection(normed).view(batch, time, heads, -1).transpose(1, 2)
        for projection in (attention.k_proj, attention.v_proj)
    )
    scores = query @ key.transpose(2, 3) * attention.scale
    if causal:
        later = torch.arange(time, device=hidden.device)[None, :] > position[:, None]
        scores = scores.masked_fill(later[:, None, None, :], torch.finfo(scores.dtype).min)
    attended = (scores.float().softmax(dim=-1).to(value.dtype) @ value).reshape(batch, width)
    output = hidden[rows, position] + attention.out_proj(attended)
    output = output + block.mlp(block.layer_norm2(output))
    return torch.zeros_like(hidden, dtype=output.dtype).index_put((rows, position), output)
