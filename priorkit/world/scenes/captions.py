"""Captions: scenes in words. Every word follows from the scene."""

from __future__ import annotations

import random

from priorkit.world.scenes.drawing import Scene, SceneObject
from priorkit.world.scenes.palette import TEXTURES, article
from priorkit.world.scenes.scenes import RELATIONS, Relation, relation_between

_PLACE_WORDS: dict[Relation, str] = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}
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
    """A short caption in one of many wordings that names every object of the scene."""
    phrases = [noun_phrase(rng, placed.object) for placed in scene.objects]
    text = phrases[0]
    if len(phrases) == 2:
        relation = relation_between(scene.objects[0], scene.objects[1])
        text = f"{phrases[0]} {_link(rng, relation)} {phrases[1]}"
    elif len(phrases) > 2:
        text = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    if rng.random() < 0.15:
        text += f" on {ground_phrase(rng, scene)}" if " tile" not in text else f", {_before(rng, scene)}"
    return rng.choice(_OPENINGS).format(text)


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
    for first in range(len(items)):
        for second in range(first + 1, len(items)):
            relation = relation_between(scene.objects[first], scene.objects[second])
            if relation in RELATIONS:
                names = items[first].entity.name, items[second].entity.name
                sentences.append(f"The {names[0]} is {place_phrase(relation)} the {names[1]}.")
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
