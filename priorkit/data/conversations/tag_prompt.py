"""Image tags before a question: the paper's instruction, with or without the soft prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from priorkit.data.conversations.conversation import PLACEHOLDER, Turn

SOFT_TOKEN = "<soft_prompt>"
"""The reserved token whose embedding is the trained vector of the soft prompt."""

TAG_SENTENCE = "According to {soft}, you are allowed to use or partially use the following tags: [{tags}]. "
"""The paper's tag instruction (released code); ``{soft}`` is the soft token, or ``the image`` for hard tags."""

HARD_SUBJECT = "the image"

_BRACKETS = str.maketrans({"[": "(", "]": ")"})


def clean_tag(tag: str) -> str:
    """A tag as the list has it: one line, no comma, no square bracket, no reserved token."""
    text = tag.replace(SOFT_TOKEN, " ").replace("<image>", " ").translate(_BRACKETS).replace(",", " ")
    return re.sub(r"\s+", " ", text).strip()


def tag_sentence(tags: Sequence[str], mode: str) -> str:
    """The tag instruction that comes before a question.

    Args:
        tags: in order; cleaned and without repetition. Empty for no tags found.
        mode: ``off``, ``hard`` or ``soft``.

    Returns:
        Empty where tags are off. An empty list gives the instruction with ``[]``, so that 'nothing found'
        differs from 'not tagged'.
    """
    if mode == "off":
        return ""
    cleaned = list(dict.fromkeys(text for tag in tags if (text := clean_tag(tag))))
    return TAG_SENTENCE.format(soft=SOFT_TOKEN if mode == "soft" else HARD_SUBJECT, tags=", ".join(cleaned))


def insert_sentence(prompt: str, sentence: str, placeholder: str = PLACEHOLDER) -> str:
    """Put a sentence after the first image placeholder and its line breaks; without one, at the start."""
    before, image, after = prompt.partition(placeholder)
    if not image:
        return sentence + prompt
    question = after.lstrip("\n")
    line_breaks = after[: len(after) - len(question)]
    return before + image + line_breaks + sentence + question


def with_sentence(turns: Sequence[Turn], sentence: str) -> tuple[Turn, ...]:
    """Put a sentence into the first user turn, after its image placeholder."""
    first = next((index for index, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None or not sentence:
        return tuple(turns)
    turn = turns[first]
    return (*turns[:first], replace(turn, text=insert_sentence(turn.text, sentence)), *turns[first + 1 :])
