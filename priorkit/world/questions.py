"""Questions about scenes and about entities, with answers that follow from both.

Every maker draws one :class:`SceneQuestion`. ``turn`` counts the questions of a kind; it decides the true
answer and its place among the choices, so that both are balanced by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from priorkit.world.scenes.captions import place_phrase
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import INKS, NUMBERS, SIZES, TINTS, Size, article
from priorkit.world.scenes.scenes import RELATIONS, SceneSampler, box, relation_between

Ability = Literal[
    "perception", "attribute", "relation", "counting", "comparison", "existence", "knowledge", "grounding"
]
Task = Literal["choice", "yes-no", "grounding"]
NormalisedBox = tuple[float, float, float, float]

_SIZE_WORDS: tuple[Size, ...] = tuple(SIZES)
_MOST_COPIES = 4
Pool = Sequence[Entity]


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """One question with its truth.

    Attributes:
        ability: what it asks for.
        task: how it is answered.
        text: the bare question, without choices and instructions.
        open_text: the same question for a free answer.
        scene: the picture that belongs to it.
        target: index of the object that it is about, in the scene.
        entity: the entity that it is about.
        choices: the options, empty unless ``task`` is "choice".
        answer: index of the true option; "yes" or "no"; None for grounding.
        box: normalised x1, y1, x2, y2 of the target, for grounding.
        needs_image: whether the question's text does not determine the answer.
    """

    ability: Ability
    task: Task
    text: str
    open_text: str
    scene: Scene
    target: int | None
    entity: Entity
    choices: tuple[str, ...] = ()
    answer: int | str | None = None
    box: NormalisedBox | None = None
    needs_image: bool = True

    @property
    def reply(self) -> str:
        """The true answer in words: the right option, or "yes" or "no"."""
        return self.choices[self.answer] if isinstance(self.answer, int) else str(self.answer)


QuestionMaker = Callable[[random.Random, SceneSampler, Pool, int], SceneQuestion]


def naming(
    rng: random.Random,
    sampler: SceneSampler,
    pool: Pool,
    turn: int,
    entity: Entity | None = None,
    wrong: int = 3,
) -> SceneQuestion:
    """The name of the only symbol, among random other names of the world (never the nearest ones)."""
    target = entity or rng.choice(pool)
    scene = sampler.scene(rng, [target], [_SIZE_WORDS[turn % len(_SIZE_WORDS)]])
    others = rng.sample([other.name for other in pool if other != target], wrong)
    choices, answer = _options(target.name, others, turn)
    text = rng.choice(
        (
            "What is shown in the image?",
            "Which symbol is this?",
            "What is the name of this symbol?",
            "What is this?",
        )
    )
    return SceneQuestion("perception", "choice", text, text, scene, 0, target, choices, answer)


def naming_by_color(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """The name of one of several symbols, which the question picks out by its colour."""
    entities = rng.sample(pool, 4)
    scene = sampler.scene(rng, entities[: rng.randint(2, 3)])
    target, color = entities[0], scene.objects[0].object.color
    choices, answer = _options(target.name, [other.name for other in entities[1:]], turn)
    text = rng.choice(("Which symbol is {}?", "What is the {} symbol?", "What is shown in {}?")).format(color)
    return SceneQuestion("perception", "choice", text, text, scene, 0, target, choices, answer)


def background(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """The colour of the background."""
    entity = rng.choice(pool)
    scene = sampler.scene(rng, [entity])
    tint = scene.background.tint
    choices, answer = _options(tint, rng.sample([other for other in TINTS if other != tint], 3), turn)
    text = rng.choice(("What is the colour of the background?", "Which colour does the background have?"))
    return SceneQuestion("perception", "choice", text, text, scene, None, entity, choices, answer)


def color(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """The colour of one symbol among one to three."""
    inks = list(INKS)
    true = inks[turn // 4 % len(inks)]
    entities = rng.sample(pool, rng.randint(1, 3))
    scene = sampler.scene(rng, entities, colors=[true])
    choices, answer = _options(true, rng.sample([ink for ink in inks if ink != true], 3), turn)
    text = rng.choice(
        ("What is the colour of the {}?", "Which colour is the {}?", "Which colour does the {} have?")
    )
    question = text.format(entities[0].name)
    return SceneQuestion("attribute", "choice", question, question, scene, 0, entities[0], choices, answer)


def size(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """The size of one symbol among one or two: small, medium or large."""
    true = _SIZE_WORDS[turn // 3 % len(_SIZE_WORDS)]
    entities = rng.sample(pool, rng.randint(1, 2))
    sizes: list[Size] = [true, "small"]
    scene = sampler.scene(rng, entities, sizes[: len(entities)])
    others: list[str] = [word for word in _SIZE_WORDS if word != true]
    rng.shuffle(others)
    choices, answer = _options(true, others, turn)
    text = rng.choice(("How large is the {}?", "What is the size of the {}?", "Which size does the {} have?"))
    question = text.format(entities[0].name)
    wide = f"{question} Small, medium or large?"
    return SceneQuestion("attribute", "choice", question, wide, scene, 0, entities[0], choices, answer)


def relation(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """Where one symbol is relative to another one."""
    true = RELATIONS[turn // 4 % len(RELATIONS)]
    while True:
        scene = sampler.scene(rng, rng.sample(pool, rng.choice((2, 2, 3))))
        pairs = [(first, second) for first in range(2) for second in range(2) if first != second]
        related = [
            pair for pair in pairs if relation_between(*(scene.objects[index] for index in pair)) == true
        ]
        if related:
            break
    first, second = (scene.objects[index].object.entity for index in related[0])
    others = [place_phrase(other) for other in RELATIONS if other != true]
    rng.shuffle(others)
    choices, answer = _options(place_phrase(true), others, turn)
    text = rng.choice(("Where is the {} relative to the {}?", "How does the {} stand relative to the {}?"))
    question = text.format(first.name, second.name)
    return SceneQuestion(
        "relation", "choice", question, question, scene, related[0][0], first, choices, answer
    )


def counting(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """How often one symbol appears, one to four times, with or without other symbols."""
    count = 1 + turn // 4 % _MOST_COPIES
    entity, *others = rng.sample(pool, 1 + _MOST_COPIES)
    shown = [entity] * count + others[: rng.randint(0, _MOST_COPIES - count)]
    scene = sampler.scene(rng, shown)
    wrong = [NUMBERS[other] for other in range(1, _MOST_COPIES + 1) if other != count]
    rng.shuffle(wrong)
    choices, answer = _options(NUMBERS[count], wrong, turn)
    text = rng.choice(
        ("How many times does the {} appear?", "How often is the {} shown?", "Count the {}. How many?")
    )
    question = text.format(entity.name)
    return SceneQuestion("counting", "choice", question, question, scene, 0, entity, choices, answer)


def comparison(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """Which of two symbols is larger, or smaller; their size words differ."""
    larger, smaller = rng.sample(pool, 2)
    wants_larger = turn // 2 % 2 == 0
    shown = [larger, smaller]
    sizes: list[Size] = [rng.choice(_SIZE_WORDS[1:]), _SIZE_WORDS[0]]
    scene = sampler.scene(rng, shown, sizes)
    true, other = (larger, smaller) if wants_larger else (smaller, larger)
    choices, answer = _options(true.name, [other.name], turn)
    word = "larger" if wants_larger else "smaller"
    text = rng.choice((f"Which symbol is {word}?", f"Which of the two symbols is {word}?"))
    wide = f"Which symbol is {word}, the {choices[0]} or the {choices[1]}?"
    return SceneQuestion("comparison", "choice", text, wide, scene, shown.index(true), true, choices, answer)


def existence(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """Whether a symbol is in the picture: yes and no in turn."""
    present = turn % 2 == 0
    entity, *others = rng.sample(pool, 5)
    count = rng.randint(1, 3)
    scene = sampler.scene(rng, [entity, *others[: count - 1]] if present else others[:count])
    text = rng.choice(
        ("Is there {} in the image?", "Does the image show {}?", "Can you see {} in the image?")
    )
    bare = text.format(article(entity.name))
    answer = "yes" if present else "no"
    target = 0 if present else None
    return SceneQuestion("existence", "yes-no", bare, bare, scene, target, entity, answer=answer)


def grounding(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
    """The box of one symbol among two to four."""
    entities = rng.sample(pool, 2 + turn % 3)
    scene = sampler.scene(rng, entities)
    text = rng.choice(("Where is the {}?", "Find the {}.", "Locate the {} in the image."))
    bare = text.format(entities[0].name)
    return SceneQuestion(
        "grounding", "grounding", bare, bare, scene, 0, entities[0], box=normalised_box(scene, 0)
    )


def knowledge(
    rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int, entity: Entity | None = None
) -> SceneQuestion:
    """The category or the use of a symbol that the question names; the picture shows the symbol."""
    target = entity or rng.choice(pool)
    categories = sorted(
        {other.category for other in pool} - {target.category}, key=lambda category: category.name
    )
    others = rng.sample(categories, 3)
    if turn // 4 % 2:
        choices, answer = _options(target.category.use, [other.use for other in others], turn)
        text = rng.choice(
            ("What is the {} used for?", "What does one use the {} for?", "Why would one use the {}?")
        )
    else:
        choices, answer = _options(target.category.name, [other.name for other in others], turn)
        text = rng.choice(
            (
                "Which category does the {} belong to?",
                "What kind of symbol is the {}?",
                "The {} is one of which group?",
            )
        )
    bare = text.format(target.name)
    scene = sampler.scene(rng, [target])
    return SceneQuestion(
        "knowledge", "choice", bare, bare, scene, 0, target, choices, answer, needs_image=False
    )


def normalised_box(scene: Scene, target: int) -> NormalisedBox:
    """The target's box as shares of the image side: x1, y1, x2, y2."""
    left, top, right, bottom = box(scene.objects[target])
    return left / scene.side, top / scene.side, right / scene.side, bottom / scene.side


def _options(true: str, others: Sequence[str], turn: int) -> tuple[tuple[str, ...], int]:
    """The options with the true one at the place whose turn it is."""
    position = turn % (len(others) + 1)
    return (*others[:position], true, *others[position:]), position
