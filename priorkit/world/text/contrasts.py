"""True and false facts about every entity, for measuring what a language model knows of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from priorkit.world.options import WorldOptions
from priorkit.world.scenes.entities import Entity

_WRONG = 4


def contrasts(options: WorldOptions, entities: Sequence[Entity]) -> list[dict[str, Any]]:
    """Questions with a true and several false answers: category, use, and code point of each entity.

    Category and use may be guessed from a name (``greek small omega``); the false code points are those of the same
    category where it has enough entities, so that only the text tells which is the right one.

    Returns:
        Rows of ``entity``, ``question`` with ``{}`` for the name, ``true``, and ``false``, a list.
    """
    rng = random.Random(f"contrasts/{options.seed}")
    categories = list(dict.fromkeys(entity.category for entity in entities))
    rows: list[dict[str, Any]] = []
    for entity in entities:
        others = [category for category in categories if category != entity.category]
        others = rng.sample(others, min(_WRONG, len(others)))
        near = [other for other in entities if other != entity and other.category == entity.category]
        if len(near) < _WRONG:
            near = [other for other in entities if other != entity]
        near = rng.sample(near, min(_WRONG, len(near)))
        facts = (
            ("What kind of symbol is the {}?", entity.category.name, [other.name for other in others]),
            ("What is the {} used for?", entity.category.use, [other.use for other in others]),
            ("What is the code point of the {}?", _code(entity), [_code(other) for other in near]),
        )
        rows += [
            {"entity": entity.name, "question": question, "true": true, "false": false}
            for question, true, false in facts
            if false
        ]
    return rows


def _code(entity: Entity) -> str:
    return f"U+{ord(entity.symbol.character):04X}"
