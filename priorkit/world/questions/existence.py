"""Questions for whether a symbol of a name, a color, a size or at a place is in the image: yes and no equally often.

Each color, size and place is asked for equally often with yes and with no in benchmarks and in a conversation's first
question, so that it does not reveal the answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from priorkit.world.questions.base import Focus, Pool, QuestionKind, SceneQuestion, first_of_each_entity
from priorkit.world.scenes.captions import POSITIONS, empty_positions, position_phrase
from priorkit.world.scenes.drawing import PlacedObject, Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import INKS, SIZE_WORDS, article
from priorkit.world.scenes.scenes import SceneSampler

_WORDINGS = ("Is there {} in the image?", "Does the image show {}?", "Can you see {} in the image?")
_AT_PLACE = ("Is there {}?", "Does the image show {}?", "Can you see {}?")


def _draw(rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
    """Yes and no in turn."""
    scene = sampler.scene(rng, rng.sample(pool, rng.randint(1, 3)))
    return scene, (0,) if turn % 2 == 0 else ()


def _present_or_absent(rng: random.Random, focuses: list[Focus], count: int) -> list[Focus]:
    """What is there and what is not, each with probability 1/2 whatever was asked before.

    It ends when everything there has been asked for: after that every answer would be no.
    """
    present = rng.sample(focuses, len(focuses))
    chosen: list[Focus] = []
    while present and len(chosen) < count:
        chosen.append(present.pop() if rng.random() < 0.5 else ())
    return chosen


def _question(scene: Scene, focus: Focus, text: str, entity: Entity) -> SceneQuestion:
    target = focus[0] if focus else None
    answer = "yes" if focus else "no"
    return SceneQuestion("existence", "yes-no", text, text, scene, target, entity, answer=answer)


def _ask_for_name(rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
    if focus:
        entity = scene.objects[focus[0]].object.entity
    else:
        shown = {placed.object.entity for placed in scene.objects}
        entity = rng.choice([entity for entity in pool if entity not in shown])
    return _question(scene, focus, rng.choice(_WORDINGS).format(article(entity.name)), entity)


@dataclass(frozen=True, slots=True)
class _Property:
    """What every object has.

    Attributes:
        values: its values, in words.
        of: the value of an object of a scene.
        phrase: a symbol with the value in braces.
        wordings: of the question for what the braces name.
        find_missing: finds the values that a scene lacks; None for those that no object has.
    """

    values: tuple[str, ...]
    of: Callable[[PlacedObject, Scene], str]
    phrase: str
    wordings: tuple[str, ...] = _WORDINGS
    find_missing: Callable[[Scene], list[str]] | None = None

    def kind(self, name: str) -> QuestionKind:
        """The questions for it."""
        return QuestionKind(name, self._draw, self._ask, self._focuses, _present_or_absent)

    def _shown(self, scene: Scene) -> list[str]:
        return [self.of(placed, scene) for placed in scene.objects]

    def _missing(self, scene: Scene) -> list[str]:
        if self.find_missing is not None:
            return self.find_missing(scene)
        shown = self._shown(scene)
        return [value for value in self.values if value not in shown]

    def _value(self, turn: int) -> str:
        """Every value twice in a row: with yes and with no."""
        return self.values[turn // 2 % len(self.values)]

    def _draw(self, rng: random.Random, sampler: SceneSampler, pool: Pool, turn: int) -> tuple[Scene, Focus]:
        """A scene in which the value of this turn is shown or missing, in turn; some value is missing in all."""
        value = self._value(turn)
        while True:
            scene, focus = _draw(rng, sampler, pool, turn)
            shown, missing = self._shown(scene), self._missing(scene)
            if not focus and value in missing:
                return scene, ()
            if focus and missing and value in shown:
                return scene, (shown.index(value),)

    def _focuses(self, scene: Scene) -> list[Focus]:
        """One object of each value; none where no value is missing, as every answer would be yes."""
        shown = self._shown(scene) if self._missing(scene) else []
        return [(shown.index(value),) for value in dict.fromkeys(shown)]

    def _ask(self, rng: random.Random, scene: Scene, focus: Focus, pool: Pool, turn: int) -> SceneQuestion:
        missing = self._missing(scene)
        if focus:
            value = self._shown(scene)[focus[0]]
        else:
            value = self._value(turn) if self._value(turn) in missing else rng.choice(missing)
        entity = scene.objects[focus[0] if focus else 0].object.entity
        phrase = article(self.phrase.format(value))
        return _question(scene, focus, rng.choice(self.wordings).format(phrase), entity)


def _color(placed: PlacedObject, scene: Scene) -> str:
    return placed.object.color


def _size(placed: PlacedObject, scene: Scene) -> str:
    return placed.object.size


def _position(placed: PlacedObject, scene: Scene) -> str:
    return position_phrase(placed, scene.side)


of_name = QuestionKind("existence", _draw, _ask_for_name, first_of_each_entity, _present_or_absent)
of_color = _Property(tuple(INKS), _color, "{} symbol").kind("existence-by-color")
of_size = _Property(SIZE_WORDS, _size, "{} symbol").kind("existence-by-size")
by_place = _Property(POSITIONS, _position, "symbol {}", _AT_PLACE, empty_positions).kind("existence-by-place")
