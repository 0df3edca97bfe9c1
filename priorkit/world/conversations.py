"""Conversations for tuning, in the LLaVA form: questions as prompts, and their answers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from priorkit.core.boxes import BoxWriter
from priorkit.world import questions
from priorkit.world.options import WorldOptions
from priorkit.world.questions import QuestionMaker, SceneQuestion
from priorkit.world.scenes.captions import caption
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import SceneSampler

Turn = dict[str, str]
CHOICE_SUFFIX = "Answer with the option's letter from the given choices directly."
WORD_SUFFIX = "Answer the question using a single word or phrase."
YES_NO_SUFFIX = "Answer yes or no."
_IMAGE = "<image>\n"
_OPEN_SHARE = 0.9
_CAPTION_REQUESTS = (
    "Describe the image briefly.",
    "What does the image show?",
    "Give a short caption.",
    "Summarise the picture in a few words.",
    "Write a brief description of the image.",
)
# Questions of each kind per hundred. Names are the most frequent: a small model that cannot name what an
# image shows learns nothing else from it either.
_SHARES: tuple[tuple[QuestionMaker, int], ...] = (
    (questions.naming, 60),
    (questions.naming_by_color, 4),
    (questions.background, 4),
    (questions.color, 8),
    (questions.size, 3),
    (questions.relation, 4),
    (questions.counting, 3),
    (questions.comparison, 3),
    (questions.existence, 4),
    (questions.grounding, 4),
    (questions.knowledge, 3),
)


def choice_prompt(question: str, choices: Sequence[str]) -> str:
    """The question with lettered options and the standard request for a letter."""
    options = [f"{letter(index)}. {choice}" for index, choice in enumerate(choices)]
    return "\n".join([question, *options, CHOICE_SUFFIX])


def letter(index: int) -> str:
    """The letter of an option: A for 0."""
    return chr(ord("A") + index)


def exchange(question: SceneQuestion, open_form: bool, boxes: BoxWriter) -> tuple[str, str]:
    """The prompt, without image placeholder, and the answer."""
    if question.box is not None:
        return f"{question.text}\n{boxes.request}", boxes.write(question.box)
    if isinstance(question.answer, str):
        return f"{question.text}\n{YES_NO_SUFFIX}", question.answer
    if open_form or question.answer is None:
        return f"{question.open_text}\n{WORD_SUFFIX}", question.reply
    return choice_prompt(question.text, question.choices), letter(question.answer)


def instructions(
    options: WorldOptions, entities: Sequence[Entity]
) -> list[tuple[SceneQuestion, Scene | None, list[Turn]]]:
    """Questions about instructed entities, all kinds mixed.

    Only entities with ``in_text`` get questions of knowledge, some of them without a picture.

    Returns:
        The question, the picture to show or None, and the conversation.
    """
    rng = random.Random(f"instructions/{options.seed}")
    sampler = SceneSampler(options.image_size)
    pool = [entity for entity in entities if entity.instructed]
    named = [entity for entity in pool if entity.in_text]
    makers = [maker for maker, share in _SHARES for _ in range(share)]
    kinds = [makers[index % len(makers)] for index in range(options.instructions)]
    rng.shuffle(kinds)
    turns: dict[QuestionMaker, int] = {}
    result: list[tuple[SceneQuestion, Scene | None, list[Turn]]] = []
    for maker in kinds:
        turn = turns[maker] = turns.get(maker, -1) + 1
        question = maker(rng, sampler, named if maker is questions.knowledge else pool, turn)
        prompt, answer = exchange(question, rng.random() < _OPEN_SHARE, options.box_writer)
        blind = not question.needs_image and rng.random() < options.text_only_share
        human = prompt if blind else f"{_IMAGE}{prompt}"
        result.append((question, None if blind else question.scene, dialogue(human, answer)))
    return result


def captions(options: WorldOptions, entities: Sequence[Entity]) -> list[tuple[Scene, list[Turn]]]:
    """Requests for a caption, about scenes of one or two instructed entities."""
    rng = random.Random(f"captions/{options.seed}")
    sampler = SceneSampler(options.image_size)
    pool = [entity for entity in entities if entity.instructed]
    result: list[tuple[Scene, list[Turn]]] = []
    for _ in range(options.captions):
        scene = sampler.scene(rng, rng.sample(pool, rng.choice((1, 1, 1, 2))))
        request = rng.choice(_CAPTION_REQUESTS)
        result.append((scene, dialogue(f"{_IMAGE}{request}", caption(rng, scene))))
    return result


def regions(options: WorldOptions, entities: Sequence[Entity]) -> list[tuple[SceneQuestion, list[str]]]:
    """Symbols among others, each with what may be said of it: its name, and its colour where no other has it."""
    rng = random.Random(f"regions/{options.seed}")
    sampler = SceneSampler(options.image_size)
    pool = [entity for entity in entities if entity.instructed]
    result: list[tuple[SceneQuestion, list[str]]] = []
    for turn in range(options.regions):
        question = questions.grounding(rng, sampler, pool, turn)
        colors = [placed.object.color for placed in question.scene.objects]
        sentences = [f"the {question.entity.name}"]
        if colors.count(colors[0]) == 1:
            sentences.append(f"the {colors[0]} symbol")
        result.append((question, sentences))
    return result


def dialogue(human: str, answer: str) -> list[Turn]:
    """One exchange in the LLaVA form."""
    return [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
