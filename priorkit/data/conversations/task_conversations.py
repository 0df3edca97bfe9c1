"""Conversations with a task type and tags, for LION."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from priorkit.core.boxes import BOX_NOTATIONS, DECIMAL_BOXES, BoxFormatName, BoxWriter, check_box
from priorkit.core.errors import InputError, nearest, rename_hint
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import (
    COMMON,
    PLACEHOLDER,
    Conversation,
    Turn,
    check_given_images,
    conversation_of,
    holds_conversations,
)
from priorkit.data.conversations.regions import REGION_COLUMNS, holds_regions, usable_regions
from priorkit.data.images.decoding import BrokenImageError
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, files_of, read_rows

REGION, IMAGE_LEVEL = "region-level", "image-level"

_ALIASES = {
    **dict.fromkeys((REGION, "region_level", "region", "ref", "grounding"), REGION),
    **dict.fromkeys((IMAGE_LEVEL, "image_level", "image", "caption", "vqa", "norm"), IMAGE_LEVEL),
}
"""Spellings of the two task types, including those of the released code, whose training data says ``norm`` and ``ref``."""


_UNMISTAKABLE: tuple[BoxFormatName, ...] = ("decimals", "location-tokens")
"""Formats that are taken for boxes whatever the format chosen; two points in brackets may be something else."""


@dataclass(frozen=True, slots=True)
class TaskConversation:
    """A conversation with what routes it in LION.

    Attributes:
        conversation: the turns and images.
        task_type: ``region-level`` or ``image-level``.
        tags: of its image; None where the image was not tagged.
    """

    conversation: Conversation
    task_type: str
    tags: tuple[str, ...] | None = None

    @classmethod
    def of(cls, conversation: Conversation) -> TaskConversation:
        """From a conversation that carries task type and tags as its payload."""
        tags = conversation.payload["tags"]
        return cls(conversation, conversation.payload["task_type"], None if tags is None else tuple(tags))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Those of the conversation."""
        return self.conversation.turns

    def with_turns(self, turns: tuple[Turn, ...]) -> TaskConversation:
        """The same with other turns."""
        return replace(self, conversation=replace(self.conversation, turns=turns))


def task_type_of(given: Any, texts: Iterable[str] = (), writer: BoxWriter = DECIMAL_BOXES) -> str:
    """A task type by any of its spellings; without one, region-level where a text holds a box.

    Raises:
        ValueError: a spelling that is not known.
    """
    if given is None or given == "":
        patterns = [BOX_NOTATIONS[name].pattern for name in dict.fromkeys((writer.format, *_UNMISTAKABLE))]
        has_box = any(pattern.search(text) for text in texts for pattern in patterns)
        return REGION if has_box else IMAGE_LEVEL
    name = str(given).strip().lower()
    if name not in _ALIASES:
        raise ValueError(f"unknown task type '{given}' ({nearest(name, _ALIASES)})")
    return _ALIASES[name]


def tags_of(given: Any) -> tuple[str, ...] | None:
    """A ``tags`` cell: a list of texts, or one text with commas between; None stays None.

    Raises:
        ValueError: anything else.
    """
    if given is None:
        return None
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    if isinstance(given, Sequence) and all(isinstance(tag, str) for tag in cast("Sequence[Any]", given)):
        return tuple(cast("Sequence[str]", given))
    raise ValueError(f"tags must be a list of texts, got {json.dumps(given, default=str)[:80]}")


def check_boxes(texts: Iterable[str], writer: BoxWriter) -> None:
    """Check that all boxes in texts are normalized, corners in order, and in one format.

    Raises:
        ValueError: a box outside [0, 1], with reversed corners, or in another format.
    """
    for text in texts:
        for match in writer.matches(text):
            check_box(writer.corners(match), match[0])
        for name in _UNMISTAKABLE:
            if name != writer.format and (other := BOX_NOTATIONS[name].pattern.search(text)):
                raise ValueError(
                    f"the box {other[0]} is in {name}, not in {writer.format}: give --box-format {name}, or write all "
                    "boxes in one format"
                )


def check_task_conversations(path: Path, tags_column: str = "", layout: RowLayout = COMMON) -> list[Path]:
    """The files of a source, their columns checked from headers.

    Raises:
        InputError: no file of a known type, neither conversations nor regions in it, or no such tags.
    """
    files = files_of(path)
    for file in files:
        columns = column_names(file)
        if not holds_conversations(columns, layout) and not set(REGION_COLUMNS) & set(columns):
            raise InputError(
                "neither 'conversations' in LLaVA's format, a question with an answer, nor regions "
                f"({', '.join(REGION_COLUMNS)}); the columns are {', '.join(columns)}",
                where=str(file),
                hint=rename_hint("conversations", columns, only_close=True)
                or "name the columns with --question-column and --answer-column",
            )
        check_given_images(file, layout)
        if tags_column and tags_column not in columns:
            raise InputError(
                f"no column '{tags_column}'; got {', '.join(columns)}",
                where=str(file),
                hint=nearest(tags_column, columns, only_close=True)
                or "make it with priorkit tag-images, or choose --tags off",
            )
    return files


def task_conversations_of(
    path: Path,
    rejects: Rejects,
    task_column: str,
    tags_column: str,
    writer: BoxWriter,
    reserved: Sequence[str] = (),
    layout: RowLayout = COMMON,
) -> Iterator[tuple[str, int, Conversation]]:
    """Yield ``(file, row number from 1, conversation)`` of conversations and regions.

    The payload of each conversation holds its task type and tags; see :meth:`TaskConversation.of`. Rows that
    are usable are counted, the others go to ``rejects``; of a row of regions only the unusable ones do, and
    each region counts as a row.

    Args:
        path: a source.
        rejects: takes what cannot be used.
        task_column: column of the task type.
        tags_column: column of the tags; empty for none.
        writer: the format of boxes in texts, in which those of regions are written.
        reserved: texts that no conversation may contain.
        layout: the columns of the rest, and where the images are.

    Raises:
        InputError: a file is damaged.
    """
    for file in check_task_conversations(path, tags_column, layout):
        for number, row in read_rows(file, rejects):
            try:
                tags = tags_of(row.get(tags_column)) if tags_column else None
                conversations, task_type = _conversations_of_row(
                    row, file, number, rejects, task_column, writer, reserved, layout
                )
            except (BrokenImageError, ValueError) as error:
                rejects.add(str(file), number, str(error))
                continue
            payload = {"task_type": task_type, "tags": None if tags is None else list(tags)}
            for conversation in conversations:
                yield str(file), number, replace(conversation, payload=payload)


def _conversations_of_row(
    row: Mapping[str, Any],
    file: Path,
    number: int,
    rejects: Rejects,
    task_column: str,
    writer: BoxWriter,
    reserved: Sequence[str],
    layout: RowLayout,
) -> tuple[list[Conversation], str]:
    """The conversations of a row, counted as usable, and their task type."""
    if holds_regions(row):
        return usable_regions(row, file, number, writer, rejects, reserved, layout), REGION
    conversation = conversation_of(row, file, number, layout)
    texts = [turn.text for turn in conversation.turns]
    for reserved_text in reserved:
        if any(reserved_text in text for text in texts):
            raise ValueError(f"a turn holds the reserved token {reserved_text}")
    task_type = task_type_of(row.get(task_column), texts, writer)
    if task_type == REGION:
        check_boxes(texts, writer)
    rejects.accept()
    return [conversation], task_type


def questions_of(turns: Sequence[Turn]) -> list[str]:
    """The bare question to each image: the text of the turn that shows it."""
    return [
        turn.text.replace(PLACEHOLDER, "").strip()
        for turn in turns
        for _ in range(turn.text.count(PLACEHOLDER))
    ]
