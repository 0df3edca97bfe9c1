"""Questions for names: of the only symbol, of the one with a colour, of the one in a box."""

from __future__ import annotations

import random
from dataclasses import replace

from priorkit.world.questions.base import (
    Focus,
    Pool,
    QuestionKind,
    SceneQuestion,
    options_at,
)
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import SIZE_WORDS
from priorkit.world.scenes.scenes import SceneSampler

_WRONG = 3
_NAMING = (
    "What is shown in the image?",
    "Which symbol is this?",
    "What is the name of this symbol?",
    "What is this?",
)
_BY_COLOR = ("Which symbol is {}?", "What is the {} symbol?", "What is shown in {}?")


def naming_of(
    rng: random.Random,
    sampler: SceneSampler,
    pool: Pool,
    turn: int,
    entity: Entity,
    wrong: int = _WRONG,
) -> SceneQuestion:
    """The name of the only symbol, this entity, among random other names of the pool."""
    question = _ask_name(rng, _one(rng, sampler, entity, turn), pool, turn, wrong)
    return replace(question, kind=naming.name)


def _one(rng: random.Random, sampler: SceneSampler, entity: Entity, turn: int) -> Scene:
    return sampler.scene(rng, [entity], [SIZE_WORDS[turn % len(SIZE_WORDS)]])


def _ask_name(rng: random.Random, scene: Scene, pool: Pool, turn: int, wrong: int) -> SceneQuestion:
    shown = scene.objects[0].object.entity
    choices, answer = options_at(shown.name, _other_names(rng, pool, [shown], wrong), turn)
    text = rng.choice(_NAMING)
    return SceneQuestion("perception", "choice", text, text, scene, 0, shown, choices, answer)


def _other_names(rng: random.Random, pool: Pool, shown: list[Entity], count: int) -> list[str]:
    """Random other names of the pool, never the nearest ones."""
    return rng.sample([entity.name for entity in pool if entity not in shown], count)


def _draw_naming(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    return _one(rng, sampler, rng.choice(pool), turn), (0,)


def _ask_naming(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    return _ask_name(rng, scene, pool, turn, _WRONG)


def _only_object(scene: Scene) -> list[Focus]:
    return [(0,)] if len(scene.objects) == 1 else []


def _draw_by_color(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    return sampler.scene(rng, rng.sample(pool, rng.randint(2, 3))), (0,)


def _ask_by_color(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    """The other symbols of the scene are among the wrong names."""
    target = focus[0]
    asked, color = scene.objects[target].object.entity, scene.objects[target].object.color
    shown = list(
        dict.fromkeys(placed.object.entity for placed in scene.objects if placed.object.entity != asked)
    )
    near = [entity.name for entity in rng.sample(shown, len(shown))][:_WRONG]
    wrong = near + _other_names(rng, pool, [asked, *shown], _WRONG - len(near))
    choices, answer = options_at(asked.name, wrong, turn)
    text = rng.choice(_BY_COLOR).format(color)
    return SceneQuestion("perception", "choice", text, text, scene, target, asked, choices, answer)


def _all_objects(scene: Scene) -> list[Focus]:
    """Every object: colours differ within a scene."""
    return [(index,) for index in range(len(scene.objects))] if len(scene.objects) > 1 else []


naming = QuestionKind("naming", _draw_naming, _ask_naming, _only_object)
naming_by_color = QuestionKind("naming-by-color", _draw_by_color, _ask_by_color, _all_objects)
