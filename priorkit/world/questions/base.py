"""What every kind of question is: how its scene is drawn, and what may be asked about it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import NormalisedBox, SceneSampler

Ability = Literal[
    "perception", "attribute", "relation", "counting", "comparison", "existence", "knowledge", "grounding"
]
Task = Literal["choice", "yes-no", "grounding"]
Pool = Sequence[Entity]
Focus = tuple[int, ...]
"""What a question is about: indices of objects of the scene, the target first; empty for what is absent."""


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
        entity: the entity that it is about; of the first object where it is about no entity.
        choices: the options, empty unless ``task`` is "choice".
        answer: index of the true option; "yes" or "no"; None for grounding.
        box: normalised x1, y1, x2, y2 of the target, for grounding.
        needs_image: whether the question's text does not determine the answer.
        kind: the name of its kind.
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
    kind: str = ""

    @property
    def reply(self) -> str:
        """The true answer in words: the right option, or "yes" or "no"."""
        return self.choices[self.answer] if isinstance(self.answer, int) else str(self.answer)


Draw = Callable[[random.Random, SceneSampler, Pool, int], tuple[Scene, Focus]]
Ask = Callable[[random.Random, Scene, Focus, Pool, int], SceneQuestion]
Focuses = Callable[[Scene], list[Focus]]
Further = Callable[[random.Random, list[Focus], int], list[Focus]]


def in_random_order(rng: random.Random, focuses: list[Focus], count: int) -> list[Focus]:
    """Up to this many of the focuses."""
    return rng.sample(focuses, min(count, len(focuses)))


@dataclass(frozen=True, slots=True)
class QuestionKind:
    """One kind of question. Called, it draws a scene and asks one question about it.

    ``turn`` counts the questions of a kind; it decides the true answer and its place among the choices, so that
    both are balanced by construction.

    Attributes:
        name: of the kind.
        draw: a scene about which the question can be asked, with the focus of the first question.
        question: the question about a focus of a scene.
        focuses: everything in a scene that the question can be about.
        further: chooses among the focuses that the first question leaves.
    """

    name: str
    draw: Draw
    question: Ask
    focuses: Focuses
    further: Further = in_random_order

    def __call__(self, rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> SceneQuestion:
        """One question about a new scene."""
        scene, focus = self.draw(rng, sampler, pool, turn)
        return self.ask(rng, scene, focus, pool, turn)

    def ask(self, rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
        """The question about a focus of a scene."""
        return replace(self.question(rng, scene, focus, pool, turn), kind=self.name)

    def several(
        self, rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int, most: int
    ) -> list[SceneQuestion]:
        """The question of this turn and up to ``most - 1`` others about the same scene, each about
        something else in it."""
        scene, focus = self.draw(rng, sampler, pool, turn)
        others = self.focuses(scene)
        if focus in others:
            others.remove(focus)
        asked = [self.ask(rng, scene, focus, pool, turn)]
        return asked + self.about(rng, scene, self.further(rng, others, most - 1), pool)

    def about(
        self, rng: random.Random, scene: Scene, focuses: Sequence[Focus], pool: Pool
    ) -> list[SceneQuestion]:
        """One question about each focus, with the choices in random order."""
        return [self.ask(rng, scene, focus, pool, rng.randrange(1000)) for focus in focuses]


def single_objects(scene: Scene) -> list[Focus]:
    """The objects whose entity the scene shows once: what a name can refer to."""
    names = [placed.object.entity.name for placed in scene.objects]
    return [(index,) for index, name in enumerate(names) if names.count(name) == 1]


def first_of_each_entity(scene: Scene) -> list[Focus]:
    """One object of each entity."""
    entities = [placed.object.entity for placed in scene.objects]
    return [(entities.index(entity),) for entity in dict.fromkeys(entities)]


def options_at(true: str, others: Sequence[str], turn: int) -> tuple[tuple[str, ...], int]:
    """The options with the true one at the place whose turn it is, and that place."""
    place = turn % (len(others) + 1)
    return (*others[:place], true, *others[place:]), place
