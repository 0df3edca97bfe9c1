"""Whether a model names what an image shows: by likelihood among names, by generation, and asked whether it is there."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.data.images.entities import EntityImages, folded_name
from priorkit.inference.diagnosis.asking import SHORT, Ask, Asker, Context
from priorkit.scoring.answers.refusals import abstains

Floats = NDArray[np.float64]
BLOCK = 64
"""Names that follow one prompt in a pass."""


@dataclass(frozen=True)
class NamingQuestions:
    """How a model is asked for names.

    Attributes:
        name: the question for the name.
        presence: the question whether a name is shown, with ``{}``.
        max_new_tokens: most tokens of a generated answer.
    """

    name: str
    presence: str
    max_new_tokens: int


@dataclass(frozen=True)
class Naming:
    """Answers about each image.

    Attributes:
        taken: ``[images]`` the entity whose name is the most probable of those compared.
        likelihood_margin: ``[images]`` log-probability of the true name minus that of the best wrong one.
        blind_taken: ``[images]`` the same as ``taken``, of the model without the image.
        generated: the text that the model writes.
        said: ``[images]`` the entity that it names; -1 for none.
        attempted: ``[images]`` bool, whether the text is neither empty nor an abstention.
        presence: ``[images]`` 1 where yes is more probable for the true name than for a wrong one, else 0.
        tokens: of each image the first tokens of its name and of the wrong name most probable without the image.
    """

    taken: NDArray[np.int64]
    likelihood_margin: Floats
    blind_taken: NDArray[np.int64]
    generated: list[str]
    said: NDArray[np.int64]
    attempted: NDArray[np.bool_]
    presence: Floats
    tokens: list[tuple[int, int]]


def draw_distractors(entities: int, count: int, seed: int) -> list[list[int]]:
    """For each entity ``count`` others, or all others where there are fewer, drawn by seed and number.

    >>> draw_distractors(3, 5, 1)[0]
    [1, 2]
    """
    drawn: list[list[int]] = []
    for entity in range(entities):
        others = [other for other in range(entities) if other != entity]
        chosen = random.Random(f"distractors/{seed}/{entity}").sample(others, min(count, len(others)))
        drawn.append(sorted(chosen))
    return drawn


def ask_names(
    asker: Asker, entities: EntityImages, distractors: Sequence[Sequence[int]], questions: NamingQuestions
) -> Naming:
    """Ask about every image in all forms.

    Args:
        asker: asks the model.
        entities: what the images show; only images of entities with names that the tokenizer can write.
        distractors: for each entity those whose names are compared with its own.
        questions: what is asked.
    """
    names = entities.entities
    text = f"{questions.name}\n{SHORT}"
    prompt, answers = asker.chat(text, names, image=True)
    inputs = asker.inputs(entities.images, questions.name)
    asks: list[Ask] = []
    for image, entity in enumerate(entities.entity_of):
        compared = (entity, *distractors[entity])
        asks.append(Ask(prompt, tuple(answers[other] for other in compared), inputs[image]))
    scores = asker.log_probabilities(asks, "name images")
    blind = _blind(asker, text, names)
    taken = np.zeros(len(inputs), dtype=np.int64)
    margin, blind_taken = np.zeros(len(inputs)), np.zeros(len(inputs), dtype=np.int64)
    tokens: list[tuple[int, int]] = []
    for image, entity in enumerate(entities.entity_of):
        compared, values = (entity, *distractors[entity]), np.array(scores[image])
        unseen = blind[list(compared)]
        # The first of equal values would be the true name.
        taken[image] = compared[len(values) - 1 - int(values[::-1].argmax())]
        blind_taken[image] = compared[len(values) - 1 - int(unseen[::-1].argmax())]
        margin[image] = values[0] - values[1:].max() if len(values) > 1 else np.nan
        wrong = compared[1 + int(unseen[1:].argmax())] if len(values) > 1 else entity
        tokens.append((answers[entity][0], answers[wrong][0]))
    generated = asker.generate(prompt, inputs, questions.max_new_tokens, "write names")
    finder = NameFinder(names)
    return Naming(
        taken, margin, blind_taken, generated,
        np.array([finder.first(answer) for answer in generated], dtype=np.int64),
        np.array([bool(answer.strip()) and not abstains(answer) for answer in generated], dtype=np.bool_),
        _presence(asker, entities, distractors, questions), tokens,
    )  # fmt: skip


def _blind(asker: Asker, text: str, names: Sequence[str]) -> Floats:
    """Log-probability of every name without an image, ``[names]``."""
    context, answers = asker.chat(text, names, image=False)
    asks = [Ask(context, tuple(answers[start : start + BLOCK])) for start in range(0, len(names), BLOCK)]
    scores = asker.log_probabilities(asks, "name without images")
    return np.array([value for values in scores for value in values])


def _presence(
    asker: Asker, entities: EntityImages, distractors: Sequence[Sequence[int]], questions: NamingQuestions
) -> Floats:
    """1 where yes is more probable about the true name than about a wrong one; NaN where there is only one entity."""
    if not any(distractors):
        return np.full(len(entities.images), np.nan)
    spoken: dict[int, tuple[Context, list[tuple[int, ...]], str]] = {}
    for number, name in enumerate(entities.entities):
        question = questions.presence.replace("{}", name)
        context, answers = asker.chat(f"{question}\nAnswer yes or no.", ("yes", "no"), image=True)
        spoken[number] = (context, answers, question)
    asks: list[Ask] = []
    for image, entity in enumerate(entities.entity_of):
        for asked in (entity, distractors[entity][image % len(distractors[entity])]):
            context, answers, question = spoken[asked]
            inputs = asker.inputs([entities.images[image]], question)[0]
            asks.append(Ask(context, tuple(answers), inputs))
    scores = np.array(asker.log_probabilities(asks, "ask whether it is shown"))
    odds = (scores[:, 0] - scores[:, 1]).reshape(-1, 2)
    return (odds[:, 0] > odds[:, 1]).astype(np.float64)


class NameFinder:
    """Finds which of the names an answer says first; of names that begin alike the longest.

    Args:
        names: all names.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {folded_name(name): number for number, name in enumerate(names)}
        ordered = sorted(self._number, key=lambda name: (-len(name), name))
        self._pattern = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, ordered)) + r")(?!\w)")

    def first(self, answer: str) -> int:
        """The number of the first name in an answer; -1 for none."""
        found = self._pattern.search(folded_name(answer))
        return -1 if found is None else self._number[found.group()]

    def all(self, text: str) -> set[int]:
        """The numbers of all names in a text."""
        return {self._number[found.group()] for found in self._pattern.finditer(folded_name(text))}
