"""Whether a model can keep packed samples separate."""

from __future__ import annotations

from typing import Any

from priorkit.models.kernels.documents import PACKED
from priorkit.models.language.attention_window import attention_window

_TESTED_WITH_MASKS = frozenset({"gemma2", "olmo", "cohere", "stablelm"})
"""Families without packed attention that take a mask ``[batch, 1, time, time]`` and ``position_ids``; each tested."""


def packing_obstacle(config: Any, longest: int) -> str:
    """Why a model cannot keep the samples of a row separate; empty where it can.

    Args:
        config: the model's configuration.
        longest: the longest sample in tokens.
    """
    text = config.get_text_config()
    if text._attn_implementation == PACKED:
        return ""
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    recurrent = any(
        hasattr(text, name) for name in ("state_size", "conv_kernel", "mamba_d_state", "rwkv_version")
    )
    if kinds or recurrent:
        return f"'{text.model_type}' carries a state from token to token"
    window = attention_window(text)
    if window and window < longest:
        return f"'{text.model_type}' attends to {window} tokens, conversations may have {longest}"
    if getattr(text, "alibi", False) or getattr(text, "position_embedding_type", "absolute") not in (
        "absolute",
        "rotary",
    ):
        return f"'{text.model_type}' derives positions from the row"
    if text.model_type in _TESTED_WITH_MASKS:
        return ""
    return f"packing is not tested for '{text.model_type}'"
