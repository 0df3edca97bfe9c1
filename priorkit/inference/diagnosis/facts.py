"""Facts about entities, each a question with a true and false answers, as users bring them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.images.entities import folded_name
from priorkit.data.io.formats import format_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows


@dataclass(frozen=True, slots=True)
class Fact:
    """A question about an entity.

    Attributes:
        entity: its name.
        question: with ``{}`` where the name or a phrase for what an image shows is put.
        true: the right answer.
        false: wrong answers, at least one.
    """

    entity: str
    question: str
    true: str
    false: tuple[str, ...]

    def about(self, what: str) -> str:
        """The question about something."""
        return self.question.replace("{}", what)


def read_facts(path: Path, names: Sequence[str], rejects: Rejects) -> tuple[list[Fact], list[str]]:
    """Read facts about known entities.

    Args:
        path: JSON Lines, JSON, CSV or parquet with ``entity``, ``question``, ``true`` and ``false`` (a list, or texts
            separated by ``|``).
        names: the entities'; facts about others are left out.
        rejects: takes rows that hold no fact.

    Returns:
        The facts in order, and the unknown entities that others are about.

    Raises:
        InputError: there is no fact about any of the names, or too many rows hold none.
    """
    if not path.is_file() or format_of(path) is None:
        raise InputError("expected a table of facts (JSON Lines, JSON, CSV, parquet)", where=str(path))
    known = {folded_name(name): name for name in names}
    facts: list[Fact] = []
    unknown: dict[str, None] = {}
    for number, row in read_rows(path, rejects):
        try:
            fact = _fact(row)
        except ValueError as error:
            rejects.add(str(path), number, str(error))
            continue
        rejects.accept()
        name = known.get(folded_name(fact.entity))
        if name is None:
            unknown.setdefault(fact.entity)
        else:
            facts.append(Fact(name, fact.question, fact.true, fact.false))
    rejects.raise_if_over_limit()
    if not facts:
        about = f"; they are about others, such as '{next(iter(unknown))}'" if unknown else ""
        raise InputError(f"no fact is about an entity of the images{about}", where=str(path))
    return facts, list(unknown)


def _fact(row: dict[str, Any]) -> Fact:
    """The fact of a row.

    Raises:
        ValueError: it holds none.
    """
    texts: dict[str, str] = {}
    for column in ("entity", "question", "true"):
        value = row.get(column)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"'{column}' is no text; a fact has entity, question, true, false; got {', '.join(row)}"
            )
        texts[column] = value.strip()
    if "{}" not in texts["question"]:
        raise ValueError("the question has no {} where the name is put")
    given = row.get("false")
    values = given.split("|") if isinstance(given, str) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("'false' is no list of texts")
    false = tuple(dict.fromkeys(value.strip() for value in values if value.strip()))
    if not false or texts["true"] in false:
        raise ValueError("'false' needs answers that differ from the true one")
    return Fact(texts["entity"], texts["question"], texts["true"], false)
