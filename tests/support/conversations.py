"""Conversations read into memory."""

from __future__ import annotations

from pathlib import Path

from priorkit.data.conversations.conversation import Conversation, conversations_of
from priorkit.data.io.rejects import Rejects


def all_conversations(path: Path, rejects: Rejects) -> list[Conversation]:
    """All usable conversations of a source."""
    return [conversation for _, _, conversation in conversations_of(path, rejects)]
