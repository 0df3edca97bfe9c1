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


def _names_and_absent(scene: Scene) -> list[Focus]:
    """As many absent as present."""
    present = first_of_each_entity(scene)
    return [*present, *[()] * len(present)]


def _colors_and_absent(scene: Scene) -> list[Focus]:
    """As many absent as present: every object has a color of its own."""
    return [*[(index,) for index in range(len(scene.objects))], *[()] * len(scene.objects)]


def _ask_for_name(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    entity = scene.objects[focus[0]].object.entity if focus else _absent(rng, scene, pool)
    return _question(rng, scene, focus, entity.name, entity)


def _ask_for_color(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    shown = [placed.object for placed in scene.objects]
    item = shown[focus[0] if focus else 0]
    colors = {shown_item.color for shown_item in shown}
    color = item.color if focus else rng.choice([ink for ink in INKS if ink not in colors])
    return _question(rng, scene, focus, f"{color} symbol", item.entity)


def _question(rng: random.Random, scene: Scene, focus: Focus, phrase: str, entity: Entity) -> SceneQuestion:
    text = rng.choice(_EXISTENCE).format(article(phrase))
    answer, target = ("yes", focus[0]) if focus else ("no", None)
    return SceneQuestion("existence", "yes-no", text, text, scene, target, entity, answer=answer)


def _absent(rng: random.Random, scene: Scene, pool: Pool) -> Entity:
    shown = {placed.object.entity for placed in scene.objects}
    return rng.choice([entity for entity in pool if entity not in shown])


of_name = QuestionKind("existence", _draw, _ask_for_name, _names_and_absent)
of_color = QuestionKind("existence-by-color", _draw, _ask_for_color, _colors_and_absent)
