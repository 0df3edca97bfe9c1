"""The last block of a CLIP tower for the one token that is read, in training.

CLIP's feature is made of one token: the class token of an image, the end token of a text. The last block's
queries, output projection and MLP at all other tokens are computed for nothing, and so are their
gradients: a seventh of the image tower's work at six layers, a fifth of the text tower's at four. Only
keys and values need every token. The result is the same number for number; the other tokens of the last
hidden state become zeros, so this is for losses that read the pooled output or earlier layers.
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
    """Compute the last blocks of these encoders at their pooled token alone, within the context.

    Encoders of other families than CLIP and SigLIP, and towers with attention dropout, stay as they are.

    Args:
        models: dual encoders of transformers; do not copy them within the context.
    """
    undo = [step for model in models for step in _shorten(model)]
    try:
        yield
    finally:
        for step in undo:
            step()


def _shorten(model: Any) -> list[Callable[[], None]]:
    """Replace the towers' last blocks; returns what puts them back."""
    kind = model.config.model_type
    undo: list[Callable[[], None]] = []
    if kind == "clip":
        undo += _replace(
            model.vision_model, lambda hidden: torch.zeros_like(hidden[:, 0, 0], dtype=torch.long)
        )
    if kind in ("clip", "siglip"):
        text = model.text_model
        ends: dict[str, Tensor] = {}

        def remember(module: nn.Module, arguments: Any, named: dict[str, Any]) -> None:
            ids = named["input_ids"] if "input_ids" in named else arguments[0]
            ends["at"] = _end_of(text, ids, kind)

        done = _replace(text, lambda hidden: ends["at"], causal=kind == "clip")
        if done:
            hook = text.register_forward_pre_hook(remember, with_kwargs=True)
            undo += [*done, hook.remove]
    return undo


def _end_of(text: Any, ids: Tensor, kind: str) -> Tensor:
    """The token that the text tower pools, int64 ``[batch]``, as transformers finds it."""
    if kind == "siglip":
        return torch.full_like(ids[:, 0], ids.shape[1] - 1)
    end = text.config.eos_token_id
    return ids.argmax(dim=-1) if end == 2 else (ids == end).int().argmax(dim=-1)


def _replace(
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
        return _at(block, hidden_states, position(hidden_states), causal)

    block.forward = forward
    return [lambda: delattr(block, "forward")]


def _at(block: Any, hidden: Tensor, position: Tensor, causal: bool) -> Tensor:
    """A transformer block at one position per row.

    Args:
        block: with pre-norms, as CLIP's.
        hidden: ``[batch, time, width]``.
        position: int64 ``[batch]``.
        causal: whether later tokens are out of sight. Padding on the right is then as well.

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
    seen = (scores.float().softmax(dim=-1).to(value.dtype) @ value).reshape(batch, width)
    own = hidden[rows, position] + attention.out_proj(seen)
    own = own + block.mlp(block.layer_norm2(own))
    return torch.zeros_like(hidden, dtype=own.dtype).index_put((rows, position), own)
