"""Questions about what an entity is and what it is used for, which the question names."""

from __future__ import annotations

import random

from priorkit.world.questions.base import Focus, Pool, QuestionKind, SceneQuestion, options_at
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import SceneSampler

_WRONG = 3
_USE = ("What is the {} used for?", "What does one use the {} for?", "Why would one use the {}?")
_CATEGORY = (
    "Which category does the {} belong to?",
    "What kind of symbol is the {}?",
    "The {} is one of which group?",
)


def knowledge_of(
    rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int, entity: Entity
) -> SceneQuestion:
    """The category or the use of this entity; the picture shows it."""
    return knowledge.ask(rng, sampler.scene(rng, [entity]), (0,), pool, turn)


def _draw(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    return sampler.scene(rng, [rng.choice(pool)]), (0,)


def _ask(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    entity = scene.objects[focus[0]].object.entity
    categories = sorted(
        {other.category for other in pool} - {entity.category}, key=lambda category: category.name
    )
    others = rng.sample(categories, _WRONG)
    if turn // 4 % 2:
        choices, answer = options_at(entity.category.use, [other.use for other in others], turn)
        text = rng.choice(_USE)
    else:
        choices, answer = options_at(entity.category.name, [other.name for other in others], turn)
        text = rng.choice(_CATEGORY)
    bare = text.format(entity.name)
    return SceneQuestion(
        "knowledge", "choice", bare, bare, scene, focus[0], entity, choices, answer, needs_image=False
    )


knowledge = QuestionKind("knowledge", _draw, _ask, lambda scene: [(0,)])
