"""The images of conversations, checked once before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from priorkit.data.conversations import Conversation
from priorkit.data.images import BrokenImageError, ImageRef, decode
from priorkit.data.rejects import Rejects


def usable(conversations: Sequence[Conversation], rejects: Rejects, source: str) -> list[Conversation]:
    """The conversations all of whose images decode; the others go to ``rejects``."""
    kept: list[Conversation] = []
    for number, conversation in enumerate(conversations, start=1):
        try:
            for image in conversation.images:
                decode(image)
        except BrokenImageError as error:
            rejects.add(source, number, f"{conversation.id}: {error}")
            continue
        kept.append(conversation)
    rejects.judge()
    return kept


def images_of(conversations: Sequence[Conversation]) -> list[ImageRef]:
    """All images in the order of the conversations."""
    return [image for conversation in conversations for image in conversation.images]
