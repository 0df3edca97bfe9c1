"""Image tags in front of a question: the paper's instruction, with or without the soft prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

SOFT_TOKEN = "<soft_prompt>"
"""The reserved token whose embedding is the learnt vector of the soft prompt."""

TAG_SENTENCE = "According to {soft}, you are allowed to use or partially use the following tags: [{tags}]. "
"""The paper's tag instruction (released code); ``{soft}`` is the soft token, or ``the image`` for hard tags."""

HARD_SUBJECT = "the image"

_BRACKETS = str.maketrans({"[": "(", "]": ")"})


def clean_tag(tag: str) -> str:
    """A tag as it stands in the list: one line, no comma, no square bracket, no reserved token."""
    text = tag.replace(SOFT_TOKEN, " ").replace("<image>", " ").translate(_BRACKETS).replace(",", " ")
    return re.sub(r"\s+", " ", text).strip()


def tag_sentence(tags: Sequence[str], way: str) -> str:
    """The tag instruction that stands before a question.

    Args:
        tags: in order; cleaned and without repetition. Empty for no tags found.
        way: ``off``, ``hard`` or ``soft``.

    Returns:
        Empty where tags are off. An empty list gives the instruction with ``[]``, so that 'nothing found'
        differs from 'not tagged'.
    """
    if way == "off":
        return ""
    kept = list(dict.fromkeys(text for tag in tags if (text := clean_tag(tag))))
    return TAG_SENTENCE.format(soft=SOFT_TOKEN if way == "soft" else HARD_SUBJECT, tags=", ".join(kept))
