"""Questions for the larger or smaller one of two symbols, by their names, or for the larger one by their places.

Which place has the larger symbol can be seen without a name; to compare two names, both must be found first.
"""

from __future__ import annotations

import random
from types import MappingProxyType

from priorkit.world.questions.base import (
    Focus,
    Pool,
    QuestionKind,
    SceneQuestion,
    options_at,
    single_objects,
)
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.palette import SIZE_WORDS, Size
from priorkit.world.scenes.scenes import Relation, SceneSampler, relation_between

_BY_NAME = ("Which symbol is {}, the {} or the {}?", "Which of the two is {}, the {} or the {}?")
_BY_PLACE = (
    "Which symbol is larger, the {} or the {} one?",
    "Which of the two is larger, the {} or the {} one?",
)
_PLACES: MappingProxyType[Relation, tuple[str, str]] = MappingProxyType(
    {
        "left of": ("left", "right"),
        "right of": ("right", "left"),
        "above": ("upper", "lower"),
        "below": ("lower", "upper"),
    }
)
"""What the first and the second object of a relation are called."""


def _draw_by_name(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    """The smaller one is asked for in the first two turns of four, the larger one in the others."""
    shown = rng.sample(pool, 2)
    sizes: list[Size] = [rng.choice(SIZE_WORDS[1:]), SIZE_WORDS[0]]
    return sampler.scene(rng, shown, sizes), (0, 1) if turn // 2 % 2 == 0 else (1, 0)


def _draw_by_place(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    while True:
        scene, _ = _draw_by_name(rng, sampler, pool, turn)
        if _relation(scene, (0, 1)) is not None:
            return scene, (0, 1)


def _relation(scene: Scene, pair: Focus) -> Relation | None:
    return relation_between(scene.objects[pair[0]], scene.objects[pair[1]])


def _of_different_size(scene: Scene) -> list[Focus]:
    """Pairs of objects with different words for their sizes, where no other object is in the scene."""
    single = [index for (index,) in single_objects(scene)]
    if len(scene.objects) != 2 or len(single) != 2:
        return []
    sizes = [scene.objects[index].object.size for index in single]
    return [(0, 1), (1, 0)] if sizes[0] != sizes[1] else []


def _at_clear_places(scene: Scene) -> list[Focus]:
    """The larger object and the smaller one."""
    return [
        pair
        for pair in _of_different_size(scene)
        if _is_larger(scene, pair) and _relation(scene, pair) is not None
    ]


def _is_larger(scene: Scene, pair: Focus) -> bool:
    first, second = (SIZE_WORDS.index(scene.objects[index].object.size) for index in pair)
    return first > second


def _ask_by_name(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    """The true answer is the first of the focus; whether it is the larger one decides the question."""
    true, other = (scene.objects[index].object for index in focus)
    choices, answer = options_at(true.entity.name, [other.entity.name], turn)
    word = "larger" if _is_larger(scene, focus) else "smaller"
    text = rng.choice(_BY_NAME).format(word, *choices)
    return SceneQuestion("comparison", "choice", text, text, scene, focus[0], true.entity, choices, answer)


def _ask_by_place(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    """For the larger one, the first of the focus."""
    true = scene.objects[focus[0]].object
    relation = _relation(scene, focus)
    if relation is None:
        raise ValueError(f"the relation of the objects {focus} is not clear")
    place, other_place = _PLACES[relation]
    choices, answer = options_at(place, [other_place], turn)
    text = rng.choice(_BY_PLACE).format(*choices)
    return SceneQuestion("comparison", "choice", text, text, scene, focus[0], true.entity, choices, answer)


by_name = QuestionKind("comparison", _draw_by_name, _ask_by_name, _of_different_size)
by_place = QuestionKind("comparison-by-place", _draw_by_place, _ask_by_place, _at_clear_places)
