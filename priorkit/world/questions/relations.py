"""Questions about several symbols: where they are, also to each other, and how many there are."""

from __future__ import annotations

import random

from priorkit.world.questions.base import (
    Focus,
    Pool,
    QuestionKind,
    SceneQuestion,
    first_of_each_entity,
    options_at,
    single_objects,
)
from priorkit.world.scenes.captions import place_phrase
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.palette import NUMBERS
from priorkit.world.scenes.scenes import RELATIONS, SceneSampler, normalised_box, relation_between

_MOST_COPIES = 4
_RELATION = ("Where is the {} relative to the {}?", "How does the {} stand relative to the {}?")
_COUNTING = ("How many times does the {} appear?", "How often is the {} shown?", "Count the {}. How many?")
_GROUNDING = ("Where is the {}?", "Find the {}.", "Locate the {} in the image.")


def _draw_relation(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    true = RELATIONS[turn // 4 % len(RELATIONS)]
    while True:
        scene = sampler.scene(rng, rng.sample(pool, rng.choice((2, 2, 3))))
        for pair in _related(scene):
            if max(pair) < 2 and _relation(scene, pair) == true:
                return scene, pair


def _related(scene: Scene) -> list[Focus]:
    """Pairs of objects with a clear relation."""
    single = [index for (index,) in single_objects(scene)]
    pairs = [(first, second) for first in single for second in single if first != second]
    return [pair for pair in pairs if _relation(scene, pair)]


def _relation(scene: Scene, pair: Focus) -> str | None:
    return relation_between(scene.objects[pair[0]], scene.objects[pair[1]])


def _ask_relation(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    first, second = (scene.objects[index].object.entity for index in focus)
    true = relation_between(*(scene.objects[index] for index in focus))
    if true is None:
        raise ValueError(f"the relation of the objects {focus} is not clear")
    others = [place_phrase(other) for other in RELATIONS if other != true]
    rng.shuffle(others)
    choices, answer = options_at(place_phrase(true), others, turn)
    text = rng.choice(_RELATION).format(first.name, second.name)
    return SceneQuestion("relation", "choice", text, text, scene, focus[0], first, choices, answer)


def _draw_counting(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    count = 1 + turn // 4 % _MOST_COPIES
    entity, *others = rng.sample(pool, 1 + _MOST_COPIES)
    return sampler.scene(rng, [entity] * count + others[: rng.randint(0, _MOST_COPIES - count)]), (0,)


def _ask_counting(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    entity = scene.objects[focus[0]].object.entity
    count = sum(placed.object.entity == entity for placed in scene.objects)
    wrong = [NUMBERS[other] for other in range(1, _MOST_COPIES + 1) if other != count]
    rng.shuffle(wrong)
    choices, answer = options_at(NUMBERS[count], wrong, turn)
    text = rng.choice(_COUNTING).format(entity.name)
    return SceneQuestion("counting", "choice", text, text, scene, focus[0], entity, choices, answer)


def _draw_grounding(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    """One symbol among two to four."""
    return sampler.scene(rng, rng.sample(pool, 2 + turn % 3)), (0,)


def _ask_grounding(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    placed = scene.objects[focus[0]]
    text = rng.choice(_GROUNDING).format(placed.object.entity.name)
    shown_at = normalised_box(placed, scene.side)
    return SceneQuestion(
        "grounding", "grounding", text, text, scene, focus[0], placed.object.entity, box=shown_at
    )


relation = QuestionKind("relation", _draw_relation, _ask_relation, _related)
counting = QuestionKind("counting", _draw_counting, _ask_counting, first_of_each_entity)
grounding = QuestionKind("grounding", _draw_grounding, _ask_grounding, single_objects)
