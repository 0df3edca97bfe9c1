"""The beginning-of-text token before prompts: as the tokenizer puts it there, always, or never.

By default as in lm-evaluation-harness 0.4.13 (``add_bos_token=None``): a text is encoded as the tokenizer's own call
encodes it, so that Llama, Mistral and Gemma read the token that they were trained with. Their scores are wrong
without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from priorkit.core.errors import InputError
from priorkit.core.options.settings import option
from priorkit.models.language.conversation_formats import ChatTemplateSettings

BosRule = Literal["auto", "always", "never"]


class PromptSettings(ChatTemplateSettings):
    """How a language model is addressed."""

    group: ClassVar[str] = "what to do"

    bos_token: BosRule = option(
        "auto",
        "Beginning-of-text token before prompts and documents: as the tokenizer puts it (auto, as in "
        "lm-evaluation-harness), always, or never.",
        advanced=True,
    )


def bos_ids_of(tokenizer: Any, rule: BosRule) -> list[int]:
    """The token ids that every prompt begins with.

    Args:
        tokenizer: a transformers tokenizer.
        rule: ``auto`` for what the tokenizer puts before a text when it is called.

    Raises:
        InputError: ``always``, and the tokenizer has no beginning-of-text token.
    """
    if rule == "never":
        return []
    from priorkit.models.language.tokenizer import bos_ids

    ids = bos_ids(tokenizer)
    if ids or rule == "auto":
        return ids
    if tokenizer.bos_token_id is None:
        raise InputError(
            "the tokenizer has no beginning-of-text token",
            where="--bos-token always",
            hint="leave the option out",
        )
    return [int(tokenizer.bos_token_id)]


def bos_text(folder: Path, rule: BosRule) -> str | None:
    """The text of the token that prompts began with; None if there was none."""
    from priorkit.models.language.tokenizer import load_tokenizer

    tokenizer: Any = load_tokenizer(folder)
    return tokenizer.decode(bos_ids_of(tokenizer, rule)) or None
