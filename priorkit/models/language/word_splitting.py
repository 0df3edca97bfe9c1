"""How text is split into words before byte-level BPE: the patterns of well-known tokenizers. No library at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tokenizers import pre_tokenizers

WordSplitting = Literal["qwen2", "llama3", "gpt2", "digits"]
"""The names of the patterns."""

DEFAULT: WordSplitting = "qwen2"
"""Digits are single tokens, so that numbers stay readable, and gigatoken knows it."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

PATTERNS: dict[WordSplitting, str] = {
    "qwen2": _CONTRACTIONS + r"\p{N}" + _REST,
    "llama3": _CONTRACTIONS + r"\p{N}{1,3}" + _REST,
    "gpt2": "",
    "digits": r"\p{N}",
}
"""The pattern of each: those of Qwen 2 and of Llama 3 (cl100k), nothing in addition to GPT-2's own, and GPT-2's own
after every digit, as in priorkit 0.2."""


def word_splitter(name: WordSplitting) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer of a pattern, for byte-level BPE."""
    from tokenizers import Regex, pre_tokenizers

    own = name in ("gpt2", "digits")
    byte_level: Any = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=own)
    if not PATTERNS[name]:
        return byte_level
    split = pre_tokenizers.Split(Regex(PATTERNS[name]), behavior="isolated")
    return pre_tokenizers.Sequence([split, byte_level])
