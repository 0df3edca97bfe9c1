"""How far back a language model's tokens attend."""

from __future__ import annotations

from typing import Any


def attention_window(config: Any) -> int | None:
    """Tokens that the most short-sighted layer attends to; None where every layer attends to all before.

    Args:
        config: of a model or of its language model; a sliding window (Mistral, Gemma) or chunks (Llama 4).
    """
    text = config.get_text_config()
    sizes = (getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((int(size) for size in sizes if size), default=None)
