"""Questions for colour, size and background."""

from __future__ import annotations

import random

from priorkit.world.questions.base import (
    Focus,
    Pool,
    QuestionKind,
    SceneQuestion,
    options_at,
    single_objects,
)
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.palette import INKS, SIZE_WORDS, TINTS, Size
from priorkit.world.scenes.scenes import SceneSampler

_BACKGROUND = ("What is the colour of the background?", "Which colour does the background have?")
_COLOR = ("What is the colour of the {}?", "Which colour is the {}?", "Which colour does the {} have?")
_SIZE = ("How large is the {}?", "What is the size of the {}?", "Which size does the {} have?")


def _draw_background(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    return sampler.scene(rng, [rng.choice(pool)]), ()


def _ask_background(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    tint = scene.background.tint
    choices, answer = options_at(tint, rng.sample([other for other in TINTS if other != tint], 3), turn)
    text, entity = rng.choice(_BACKGROUND), scene.objects[0].object.entity
    return SceneQuestion("perception", "choice", text, text, scene, None, entity, choices, answer)


def _draw_color(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    inks = list(INKS)
    entities = rng.sample(pool, rng.randint(1, 3))
    return sampler.scene(rng, entities, colors=[inks[turn // 4 % len(inks)]]), (0,)


def _ask_color(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    item = scene.objects[focus[0]].object
    choices, answer = options_at(item.color, rng.sample([ink for ink in INKS if ink != item.color], 3), turn)
    text = rng.choice(_COLOR).format(item.entity.name)
    return SceneQuestion("attribute", "choice", text, text, scene, focus[0], item.entity, choices, answer)


def _draw_size(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    entities = rng.sample(pool, rng.randint(1, 2))
    sizes: list[Size] = [SIZE_WORDS[turn // 3 % len(SIZE_WORDS)], "small"]
    return sampler.scene(rng, entities, sizes[: len(entities)]), (0,)


def _ask_size(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    item = scene.objects[focus[0]].object
    others: list[str] = [word for word in SIZE_WORDS if word != item.size]
    rng.shuffle(others)
    choices, answer = options_at(item.size, others, turn)
    text = rng.choice(_SIZE).format(item.entity.name)
    wide = f"{text} Small, medium or large?"
    return SceneQuestion("attribute", "choice", text, wide, scene, focus[0], item.entity, choices, answer)


background = QuestionKind("background", _draw_background, _ask_background, lambda scene: [()])
color = QuestionKind("color", _draw_color, _ask_color, single_objects)
size = QuestionKind("size", _draw_size, _ask_size, single_objects)
