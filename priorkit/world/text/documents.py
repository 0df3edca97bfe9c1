"""Generated text sources about the visual world and about the entities, as streams of documents.

They name only the entities with ``in_text``; the sources of reasoning, in separate modules, name none.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from priorkit.core.boxes import DECIMAL_BOXES, BoxWriter
from priorkit.world.questions.kinds import LOOKED_UP
from priorkit.world.scenes.captions import caption, describe, listing, sorted_listing
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Category, Entity
from priorkit.world.scenes.palette import NUMBERS
from priorkit.world.scenes.scenes import SceneSampler

Writer = Callable[[random.Random], str]
_QUESTIONS = 3  # most questions after a list
_PATIENCE = 1000  # repeated documents in a row after which a source is exhausted


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its identifier."""

    id: str
    text: str


def split(
    write: Writer, rng: random.Random, name: str, characters: int, heldout_share: float
) -> tuple[list[Document], list[Document]]:
    """Write documents until both parts have their size; no text comes twice.

    Returns:
        The training documents and the held-out ones, ``heldout_share`` times as many characters.
    """
    fresh = _fresh(write, rng)
    heldout = _take(fresh, f"{name}-heldout", heldout_share * characters)
    return _take(fresh, name, characters), heldout


def _fresh(write: Writer, rng: random.Random) -> Iterator[str]:
    seen: set[str] = set()
    repeats = 0
    while repeats < _PATIENCE:
        text = write(rng)
        repeats = repeats + 1 if text in seen else 0
        if not repeats:
            seen.add(text)
            yield text


def _take(texts: Iterator[str], name: str, characters: float) -> list[Document]:
    documents: list[Document] = []
    size = 0
    while size < characters:
        text = next(texts, None)
        if text is None:
            break
        documents.append(Document(f"{name}-{len(documents):06d}", text))
        size += len(text)
    return documents


def visual_writer(
    entities: Sequence[Entity], side: int, boxes: BoxWriter = DECIMAL_BOXES, listing_share: float = 0.0
) -> Writer:
    """Scenes of the entities with ``in_text`` in words, each with what follows from them.

    Most are descriptions in prose, with a caption, a question or a number; a share lists every object with its box,
    with questions whose answers can be looked up in the list.

    Args:
        entities: of the world.
        side: of the images, in pixels.
        boxes: writes boxes.
        listing_share: share of the documents that are lists.
    """
    named = [entity for entity in entities if entity.in_text]
    sampler = SceneSampler(side)

    def write(rng: random.Random) -> str:
        if rng.random() < listing_share:
            return _listed(rng, sampler.scene(rng, rng.sample(named, rng.randint(1, 4))), named, boxes)
        return _prose(rng, sampler.scene(rng, rng.sample(named, rng.randint(1, 4))))

    return write


def _prose(rng: random.Random, scene: Scene) -> str:
    text = describe(rng, scene)
    draw = rng.random()
    if draw < 0.35:
        return f"{text} Caption: {caption(rng, scene)}."
    asked = rng.choice(scene.objects).object
    if draw < 0.55:
        return f"{text} Which colour is the {asked.entity.name}? It is {asked.color}."
    if draw < 0.7:
        return f"{text} How many symbols are there? {NUMBERS[len(scene.objects)].capitalize()}."
    if draw < 0.85:
        return f"{text} Which symbol is {asked.color}? The {asked.entity.name}."
    return text


def _listed(rng: random.Random, scene: Scene, named: Sequence[Entity], boxes: BoxWriter) -> str:
    """The list of a scene, the same list sorted, and up to three questions about it, each with its answer.

    Copying what came before is learned from the sorted list: nearly all of its tokens follow from the first one, where
    a question has one or four such tokens.
    """
    askable = [
        (kind, focus) for kind in LOOKED_UP for focus in kind.further(rng, kind.focuses(scene), _QUESTIONS)
    ]
    lines = [
        f"{listing(rng, scene, boxes)}.",
        f"{sorted_listing(rng, scene, boxes)}.",
    ]
    for kind, focus in rng.sample(askable, min(len(askable), _QUESTIONS)):
        (question,) = kind.about(rng, scene, [focus], named)
        reply = boxes.write(question.box) if question.box is not None else question.reply
        lines.append(f"{question.open_text} {reply}")
    return "\n".join(lines)


def facts_writer(entities: Sequence[Entity]) -> Writer:
    """Facts about the entities with ``in_text``: category, use, code point, name and neighbors in the category."""
    named = [entity for entity in entities if entity.in_text]
    groups: dict[Category, list[Entity]] = {}
    for entity in named:
        groups.setdefault(entity.category, []).append(entity)

    def write(rng: random.Random) -> str:
        if rng.random() < 0.1:
            category = rng.choice(list(groups))
            return _about_category(rng, category, groups[category])
        entity = rng.choice(named)
        return _about_entity(rng, entity, groups[entity.category], named)

    return write


def _about_category(rng: random.Random, category: Category, members: Sequence[Entity]) -> str:
    chosen = rng.sample(members, min(len(members), rng.randint(2, 6)))
    listed = ", ".join(f"the {member.name}" for member in chosen)
    return rng.choice(
        (
            f"The {category.name} are used {category.use}. Among the {category.name} are: {listed}.",
            f"Which symbols are used {category.use}? The {category.name}, for example {listed}.",
            f"Some {category.name}: {listed}. They are used {category.use}.",
        )
    )


def _about_entity(
    rng: random.Random, entity: Entity, group: Sequence[Entity], named: Sequence[Entity]
) -> str:
    name, category = entity.name, entity.category
    code = f"U+{ord(entity.symbol.character):04X}"
    words = len(name.split())
    facts = [
        rng.choice(
            (
                f"The {name} belongs to the {category.name}.",
                f"The {name} is one of the {category.name}.",
                f"Which category does the {name} belong to? It belongs to the {category.name}.",
                f"What kind of symbol is the {name}? It is one of the {category.name}.",
            )
        ),
        rng.choice(
            (
                f"The {name} is used {category.use}.",
                f"One uses the {name} {category.use}.",
                f"What is the {name} used for? It is used {category.use}.",
            )
        ),
        rng.choice(
            (f"The code point of the {name} is {code}.", f"In Unicode the {name} has the code point {code}.")
        ),
        rng.choice(
            (
                f"The name {name} has {NUMBERS[words]} {'word' if words == 1 else 'words'}.",
                f"The first letter of {name} is {name[0]}.",
                f"One spells {name} like this: {' '.join(name.replace(' ', '-'))}.",
            )
        ),
        _neighbour(rng, entity, group),
        _contrast(rng, entity, named),
    ]
    chosen = rng.sample(facts, rng.randint(2, 4))
    return " ".join(fact for fact in chosen if fact) or facts[0]


def _neighbour(rng: random.Random, entity: Entity, group: Sequence[Entity]) -> str:
    index = group.index(entity)
    if index and rng.random() < 0.5:
        return f"In the list of {entity.category.name}, the {entity.name} comes after the {group[index - 1].name}."
    if index + 1 < len(group):
        return f"In the list of {entity.category.name}, the {entity.name} comes before the {group[index + 1].name}."
    return ""


def _contrast(rng: random.Random, entity: Entity, named: Sequence[Entity]) -> str:
    other = rng.choice(named)
    if other.category == entity.category:
        return (
            f"The {entity.name} and the {other.name} are both {entity.category.name}."
            if other != entity
            else ""
        )
    return (
        f"Unlike the {other.name}, which is one of the {other.category.name}, "
        f"the {entity.name} is one of the {entity.category.name}."
    )
