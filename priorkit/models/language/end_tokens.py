"""Tokens that end an answer."""

from __future__ import annotations

from typing import Any


def end_tokens_of(configured: Any, tokenizer: Any) -> frozenset[int]:
    """Those of a model's generation settings, and the tokenizer's end of text.

    Args:
        configured: transformers' ``GenerationConfig``; None where the model has none.
        tokenizer: a transformers tokenizer.
    """
    ends = getattr(configured, "eos_token_id", None)
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(int(end) for end in (*listed, tokenizer.eos_token_id) if end is not None)
