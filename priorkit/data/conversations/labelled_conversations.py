"""Conversations labelled by the ability that they train: as text for a labeller, and written back by label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import (
    COMMON,
    Conversation,
    check_conversations,
    conversation_of,
    drop_broken_images,
)
from priorkit.data.images.decoding import BrokenImageError, ImageRef
from priorkit.data.images.tagged_tables import Row, write_rows
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.data.text.concepts import ABILITY_LABELS, NONE
from priorkit.data.text.segments import Record

ABILITY = "ability"
"""The key of a row that holds its label, or ``none``."""

_SPEAKERS = {"system": "Instruction", "user": "Question", "assistant": "Answer"}


def as_text(conversation: Conversation) -> str:
    """A conversation's questions and answers as one text; its images are left out."""
    turns = conversation.without_images().turns
    return "\n".join(f"{_SPEAKERS[turn.role]}: {turn.text.strip()}" for turn in turns)


def conversation_records(
    path: Path, rejects: Rejects, layout: RowLayout = COMMON, check_images: bool = False
) -> Iterator[Record]:
    """Yield the conversations of a source in order as text; ids are ``number of the file:number of the row``.

    Args:
        path: a file or a folder of files.
        rejects: takes rows that are not conversations, or whose image is missing.
        layout: their columns, and where the images are.
        check_images: decode the images, and reject rows with a broken one.

    Raises:
        InputError: a file is damaged, or there is no conversation at all.
    """
    count = 0
    for index, file in enumerate(check_conversations(path, layout)):
        conversations = _readable(file, rejects, layout)
        if check_images:
            conversations = drop_broken_images(conversations, rejects)
        for _, number, conversation in conversations:
            count += 1
            yield Record(f"{index}:{number}", as_text(conversation), "")
    if not count:
        raise InputError("no conversations here", where=str(path))


def _readable(file: Path, rejects: Rejects, layout: RowLayout) -> Iterator[tuple[str, int, Conversation]]:
    """Yield ``(file, row number, conversation)`` of a file; other rows go to ``rejects``."""
    for number, row in read_rows(file, rejects):
        try:
            conversation = conversation_of(row, file, number, layout)
            as_text(conversation).encode()
        except (BrokenImageError, ValueError) as error:
            rejects.add(str(file), number, str(error))
            continue
        rejects.accept()
        yield str(file), number, conversation


def conversation_images(
    path: Path, ids: Iterable[str], layout: RowLayout = COMMON
) -> Iterator[tuple[ImageRef, ...]]:
    """Yield the images of conversations of a source.

    Args:
        path: the source.
        ids: of :func:`conversation_records`, in its order.
        layout: their columns, and where the images are.
    """
    ignored = Rejects(1.0)
    rows = (
        (f"{index}:{number}", conversation.images)
        for index, file in enumerate(check_conversations(path, layout))
        for _, number, conversation in _readable(file, ignored, layout)
    )
    for identifier in ids:
        yield next(images for found, images in rows if found == identifier)


def most_likely(scores: NDArray[np.float32], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """At most one label a row: of those present the one with the highest score, the first of ties.

    Args:
        scores: float32 ``[rows, labels]``.
        present: bool ``[rows, labels]``.
    """
    best = np.where(present, scores, -np.inf).argmax(1)
    return present & (np.arange(present.shape[1]) == best[:, None])


class Abilities:
    """The abilities of a source's conversations, a few bytes for each.

    Args:
        ids: of :func:`conversation_records`, in its order.
        present: bool ``[rows, labels]``, at most one a row.
    """

    def __init__(self, ids: Iterable[str], present: NDArray[np.bool_]) -> None:
        self._keys = np.fromiter(
            (_key(*map(int, identifier.split(":"))) for identifier in ids), np.int64, len(present)
        )
        self._labels = np.where(present.any(1), present.argmax(1), -1).astype(np.int8)

    def find(self, file: int, row: int) -> str | None:
        """The ability of a row of a file, ``none`` where it has neither; None for an unknown row."""
        index = int(np.searchsorted(self._keys, _key(file, row)))
        if index == len(self._keys) or self._keys[index] != _key(file, row):
            return None
        label = int(self._labels[index])
        return NONE if label < 0 else ABILITY_LABELS.labels[label]


def _key(file: int, row: int) -> int:
    return file << 40 | row


def write_by_ability(
    path: Path, folder: Path, abilities: Abilities, rejects: Rejects, layout: RowLayout = COMMON
) -> None:
    """Write a source's conversations with their ability as ``folder/ABILITY/00000.parquet``, a file per file.

    Args:
        path: the source.
        folder: where the tables go.
        abilities: of its conversations; rows without one were rejected when they were read.
        rejects: takes rows that cannot be written and were not rejected before.
        layout: their columns, and where the images are.
    """
    known = {(row["file"], row["row"]) for row in rejects.rows}
    for index, file in enumerate(check_conversations(path, layout)):
        again = Rejects(1.0)

        def fill(rows: Sequence[Row], _: Path, index: int = index) -> list[Any]:
            missing = BrokenImageError("not a conversation")
            return [abilities.find(index, number) or missing for number, _ in rows]

        def target(ability: Any, index: int = index) -> Path:
            return folder / ability / f"{index:05}.parquet"

        write_rows(file, ABILITY, False, fill, target, again, layout)
        for row in again.rows:
            if (row["file"], row["row"]) not in known:
                rejects.add(str(row["file"]), int(row["row"]), str(row["reason"]))
