"""How often instructions ask about each entity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.work import Work
from priorkit.data.conversations.conversation import Conversation, conversations_of
from priorkit.data.io.rejects import Rejects
from priorkit.inference.diagnosis.naming import NameFinder

_LETTER = re.compile(r"\(?([A-Z])[.)]?")


def read_counts(work: Work[Any], names: Sequence[str]) -> NDArray[np.int64] | None:
    """Counts of the step's instructions, ``[names]``; None where none are given."""
    item = work.inputs.optional("instructions")
    if item is None:
        return None
    unread = Rejects(1.0)
    counts = instruction_counts(item.path, names, unread)
    work.metrics["instructions_rejected"] = len(unread)
    return counts


def instruction_counts(path: Path, names: Sequence[str], rejects: Rejects) -> NDArray[np.int64]:
    """Conversations about an image in which an answer names each entity: ``[names]``.

    An answer that is the letter of an option counts as that option's text.

    Args:
        path: conversations in LLaVA's format, or rows of question and answer.
        names: the entities'.
        rejects: takes rows that cannot be read.
    """
    finder = NameFinder(names)
    counts = np.zeros(len(names), dtype=np.int64)
    for _, _, conversation in conversations_of(path, rejects):
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
