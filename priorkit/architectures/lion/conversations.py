"""LION's data: conversations and regions with task types, kept on disk, mixed and selected by task type."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from priorkit.architectures.lion.modeling.configuration import TASK_TYPES
from priorkit.architectures.lion.settings import LionTuneSettings
from priorkit.core.errors import InputError
from priorkit.core.work import Work
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import Conversation
from priorkit.data.conversations.conversation_store import ConversationMixture
from priorkit.data.conversations.tag_prompt import SOFT_TOKEN
from priorkit.data.conversations.task_conversations import TaskConversation, task_conversations_of
from priorkit.data.io.rejects import Rejects
from priorkit.training.finetuning.conversation_source import read_mixture

logger = logging.getLogger(__name__)


class TaskConversations(Protocol):
    """Conversations with task types, by number."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> TaskConversation: ...


class StoredTaskConversations:
    """The conversations of a mixture with their task types, read on demand."""

    def __init__(self, mixture: ConversationMixture) -> None:
        self._mixture = mixture

    def __len__(self) -> int:
        return len(self._mixture)

    def __getitem__(self, index: int) -> TaskConversation:
        return TaskConversation.of(self._mixture[index])


def read_task_conversations(
    settings: LionTuneSettings, work: Work, tags: str, rejects: Rejects
) -> StoredTaskConversations:
    """The usable conversations of all sources, drawn as the mixture that the settings ask for.

    Raises:
        InputError: broken samples beyond the limit, or nothing left.
    """
    tags_column = settings.tags_column if tags != "off" else ""

    def read(path: Path, rejects: Rejects, layout: RowLayout) -> Iterator[tuple[str, int, Conversation]]:
        return task_conversations_of(
            path, rejects, settings.task_column, tags_column, settings.box_writer, (SOFT_TOKEN,), layout
        )

    return StoredTaskConversations(
        read_mixture(settings, work, "instructions", rejects, settings.seed, read=read)
    )


def select_task_types(
    conversations: TaskConversations, task_types: Sequence[str]
) -> tuple[Sequence[int], dict[str, int]]:
    """The indices of the conversations of some task types, and how many there are of each.

    Raises:
        InputError: a task type has no conversation.
    """
    present = array(
        "b", (TASK_TYPES.index(conversations[index].task_type) for index in range(len(conversations)))
    )
    wanted = {TASK_TYPES.index(task_type) for task_type in task_types}
    counts = {task_type: present.count(TASK_TYPES.index(task_type)) for task_type in task_types}
    absent = [task_type for task_type, count in counts.items() if not count]
    if absent:
        raise InputError(
            f"no {' and no '.join(absent)} sample among {len(present)}",
            hint="set the column task_type to region-level or image-level (--task-column)",
        )
    selected = array("q", (index for index, task in enumerate(present) if task in wanted))
    if len(selected) < len(present):
        logger.info(f"  {len(present) - len(selected)} samples of the other task type are left out")
    return selected, counts
