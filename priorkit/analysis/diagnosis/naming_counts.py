"""How often captions and instructions name each entity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.work import Work
from priorkit.data.columns import RowLayout
from priorkit.data.conversations.conversation import (
    CAPTION_IMAGES,
    COMMON,
    Conversation,
    conversations_of,
)
from priorkit.data.io.rejects import Rejects
from priorkit.inference.diagnosis.naming import NameFinder

_LETTER = re.compile(r"\(?([A-Z])[.)]?")


COUNTED = {"captions": RowLayout(image=CAPTION_IMAGES), "instructions": COMMON}
"""Training data whose rows are counted, and their columns: options of ``diagnose``, and measures of its evidence."""


def read_counts(work: Work[Any], names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Counts of the step's captions and instructions, each ``[names]``, as far as they are given."""
    counts: dict[str, NDArray[np.int64]] = {}
    for data, layout in COUNTED.items():
        if item := work.inputs.optional(data):
            unread = Rejects(1.0)
            counts[data] = naming_counts(item.path, names, unread, layout)
            work.metrics[f"{data}_rejected"] = len(unread)
    return counts


def naming_counts(
    path: Path, names: Sequence[str], rejects: Rejects, layout: RowLayout = COMMON
) -> NDArray[np.int64]:
    """Conversations about an image in which an answer names each entity: ``[names]``.

    An answer that is the letter of an option counts as that option's text.

    Args:
        path: conversations in LLaVA's format, rows of question and answer, or captions.
        names: the entities'.
        rejects: takes rows that cannot be read.
        layout: the columns of the rows.
    """
    finder = NameFinder(names)
    counts = np.zeros(len(names), dtype=np.int64)
    for _, _, conversation in conversations_of(path, rejects, layout):
        rejects.accept()
        if conversation.images:
            for number in set().union(*(finder.all(answer) for answer in _answers(conversation))):
                counts[number] += 1
    return counts


def _answers(conversation: Conversation) -> list[str]:
    """The assistant's texts, letters resolved by the options of the question before them."""
    answers: list[str] = []
    asked = ""
    for turn in conversation.turns:
        if turn.role != "assistant":
            asked = turn.text
            continue
        letter = _LETTER.fullmatch(turn.text.strip())
        option = letter and re.search(rf"^{letter[1]}[.)] (.+)$", asked, re.MULTILINE)
        answers.append(option[1] if option else turn.text)
    return answers
