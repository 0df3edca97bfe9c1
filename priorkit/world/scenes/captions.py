"""Captions: scenes in words. Every word follows from the scene."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from priorkit.core.boxes import BoxWriter
from priorkit.world.scenes.drawing import PlacedObject, Scene, SceneObject
from priorkit.world.scenes.palette import NUMBERS, TEXTURES, article
from priorkit.world.scenes.scenes import (
    Relation,
    box,
    normalised_box,
    relation_between,
)

_PLACE_WORDS: dict[Relation, str] = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}
POSITIONS = (
    "at the top left",
    "at the top",
    "at the top right",
    "at the left",
    "in the middle",
    "at the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)
"""What the ninths of an image are called, row by row."""

_OPENINGS = ("a photo of {}", "a picture of {}", "an image of {}", "{}", "a drawing of {}")


def noun_phrase(rng: random.Random, item: SceneObject) -> str:
    """The object with none, some or all of its attributes: "a small red anchor on a white tile"."""
    words = [item.size] if rng.random() < 0.2 else []
    words += [item.color] if rng.random() < 0.35 else []
    phrase = article(" ".join([*words, item.entity.name]))
    if item.tile is not None and rng.random() < 0.2:
        phrase += f" on {article(item.tile)} tile"
    return phrase


def ground_phrase(rng: random.Random, scene: Scene) -> str:
    """The background: "a grey background" or "a grainy grey background"."""
    words = [TEXTURES[scene.background.texture]] if rng.random() < 0.4 else []
    return article(" ".join([*words, scene.background.tint, "background"]))


def place_phrase(relation: Relation) -> str:
    """The relation as written between two noun phrases: "to the left of"."""
    return _PLACE_WORDS[relation]


def caption(rng: random.Random, scene: Scene) -> str:
    """A short caption in one of many wordings that names every entity of the scene, with places and counts."""
    groups: dict[str, list[PlacedObject]] = {}
    for placed in scene.objects:
        groups.setdefault(placed.object.entity.name, []).append(placed)
    with_places = len(scene.objects) > 1 and rng.random() < 0.3
    phrases = [_group_phrase(rng, members, scene.side, with_places) for members in groups.values()]
    text = phrases[0]
    if len(phrases) == 2:
        relation = None if with_places else _relation_of(list(groups.values()))
        text = f"{phrases[0]} {_link(rng, relation)} {phrases[1]}"
    elif len(phrases) > 2:
        text = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    if rng.random() < 0.1:
        text += f" on {ground_phrase(rng, scene)}" if " tile" not in text else f", {_before(rng, scene)}"
    return rng.choice(_OPENINGS).format(text)


def _group_phrase(rng: random.Random, members: Sequence[PlacedObject], side: int, with_place: bool) -> str:
    """One object with its attributes, or the number of several: "three anchor symbols"."""
    if len(members) > 1:
        return f"{NUMBERS[len(members)]} {members[0].object.entity.name} symbols"
    phrase = noun_phrase(rng, members[0].object)
    return f"{phrase} {position_phrase(members[0], side)}" if with_place else phrase


def _relation_of(groups: Sequence[Sequence[PlacedObject]]) -> Relation | None:
    """The relation of two single objects."""
    first, second = groups
    return relation_between(first[0], second[0]) if len(first) == len(second) == 1 else None


def position_phrase(placed: PlacedObject, side: int) -> str:
    """Where in the image the middle of the object is: "at the top left", "in the middle"."""
    left, top, right, bottom = box(placed)
    row, column = min(2, 3 * (top + bottom) // (2 * side)), min(2, 3 * (left + right) // (2 * side))
    return POSITIONS[3 * row + column]


def empty_positions(scene: Scene) -> list[str]:
    """The phrases of the ninths of the image that no object's box touches."""
    boxes = [box(placed) for placed in scene.objects]
    third = scene.side / 3

    def is_empty(row: int, column: int) -> bool:
        return all(
            right <= column * third
            or left >= (column + 1) * third
            or bottom <= row * third
            or top >= (row + 1) * third
            for left, top, right, bottom in boxes
        )

    return [position for number, position in enumerate(POSITIONS) if is_empty(*divmod(number, 3))]


def listing(rng: random.Random, scene: Scene, boxes: BoxWriter) -> str:
    """Every object with its size, colour, name and box, in random order: "small red anchor [...]; ..."."""
    return list_of(rng.sample(scene.objects, len(scene.objects)), scene.side, boxes)


def sorted_listing(rng: random.Random, scene: Scene, boxes: BoxWriter) -> str:
    """As :func:`listing`, by place or size, which it says: "From left to right: ..."."""
    words, key = rng.choice(
        (
            ("From left to right", lambda placed: box(placed)[0]),
            ("From top to bottom", lambda placed: box(placed)[1]),
            ("From small to large", lambda placed: placed.object.extent),
        )
    )
    return f"{words}: {list_of(sorted(scene.objects, key=key), scene.side, boxes)}"


def list_of(objects: Sequence[PlacedObject], side: int, boxes: BoxWriter) -> str:
    """The objects in this order, each with its size, color, name and box."""
    return "; ".join(
        f"{placed.object.size} {placed.object.color} {placed.object.entity.name} "
        f"{boxes.write(normalised_box(placed, side))}"
        for placed in objects
    )


def describe(rng: random.Random, scene: Scene) -> str:
    """A description in full sentences: what there is, how it is placed, and on what."""
    items = [placed.object for placed in scene.objects]
    phrases = [article(f"{item.size} {item.color} {item.entity.name}") for item in items]
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    sentences = [
        rng.choice(("The picture shows {}.", "There is {} in the picture.", "We see {}.")).format(listed)
    ]
    sentences += [
        f"The {item.entity.name} stands on {article(item.tile)} tile."
        for item in items
        if item.tile is not None
    ]
    names = [item.entity.name for item in items]
    single = [index for index, name in enumerate(names) if names.count(name) == 1]
    for first, second in combinations(single, 2):
        relation = relation_between(scene.objects[first], scene.objects[second])
        if relation is not None:
            sentences.append(f"The {names[first]} is {place_phrase(relation)} the {names[second]}.")
    texture = TEXTURES[scene.background.texture]
    sentences.append(
        rng.choice(("The background is {} and {}.", "Behind, everything is {} and {}.")).format(
            texture, scene.background.tint
        )
    )
    return " ".join(sentences)


def _before(rng: random.Random, scene: Scene) -> str:
    return f"before {ground_phrase(rng, scene)}"


def _link(rng: random.Random, relation: Relation | None) -> str:
    return place_phrase(relation) if relation is not None and rng.random() < 0.6 else "and"


def tags_of(scene: Scene) -> list[str]:
    """Names of what the scene shows, without repetition."""
    return list(dict.fromkeys(placed.object.entity.name for placed in scene.objects))
