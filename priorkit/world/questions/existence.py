"""Questions for whether a symbol of a name, or of a color, is in the image: yes and no equally often."""

from __future__ import annotations

import random

from priorkit.world.questions.base import Focus, Pool, QuestionKind, SceneQuestion, first_of_each_entity
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import INKS, article
from priorkit.world.scenes.scenes import SceneSampler

_EXISTENCE = ("Is there {} in the image?", "Does the image show {}?", "Can you see {} in the image?")


def _draw(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    """Yes and no in turn."""
    scene = sampler.scene(rng, rng.sample(pool, rng.randint(1, 3)))
    return scene, (0,) if turn % 2 == 0 else ()


def _colors(scene: Scene) -> list[Focus]:
    """Every object: it has a color of its own."""
    return [(index,) for index in range(len(scene.objects))]


def _present_or_absent(rng: random.Random, focuses: list[Focus], count: int) -> list[Focus]:
    """What is there and what is not, each with probability 1/2 whatever was asked before.

    It ends when everything there has been asked for: after that every answer would be no.
    """
    present = rng.sample(focuses, len(focuses))
    chosen: list[Focus] = []
    while present and len(chosen) < count:
        chosen.append(present.pop() if rng.random() < 0.5 else ())
    return chosen


def _entity(rng: random.Random, scene: Scene, focus: Focus, pool: Pool) -> Entity:
    if focus:
        return scene.objects[focus[0]].object.entity
    shown = {placed.object.entity for placed in scene.objects}
    return rng.choice([entity for entity in pool if entity not in shown])


def _colored(rng: random.Random, scene: Scene, focus: Focus) -> str:
    shown = [placed.object.color for placed in scene.objects]
    color = shown[focus[0]] if focus else rng.choice([ink for ink in INKS if ink not in shown])
    return f"{color} symbol"


def _answer(focus: Focus) -> str:
    return "yes" if focus else "no"


def _ask_for_name(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    entity = _entity(rng, scene, focus, pool)
    return _question(rng, scene, focus, entity.name, entity)


def _ask_for_color(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    return _question(
        rng, scene, focus, _colored(rng, scene, focus), scene.objects[focus[0] if focus else 0].object.entity
    )


def _question(rng: random.Random, scene: Scene, focus: Focus, phrase: str, entity: Entity) -> SceneQuestion:
    text = rng.choice(_EXISTENCE).format(article(phrase))
    target = focus[0] if focus else None
    return SceneQuestion("existence", "yes-no", text, text, scene, target, entity, answer=_answer(focus))


of_name = QuestionKind("existence", _draw, _ask_for_name, first_of_each_entity, _present_or_absent)
of_color = QuestionKind("existence-by-color", _draw, _ask_for_color, _colors, _present_or_absent)
