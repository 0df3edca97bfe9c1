"""Conversations for tuning, in the LLaVA form: questions as prompts, and their answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from priorkit.core.boxes import BoxWriter
from priorkit.world.options import WorldOptions
from priorkit.world.questions import knowledge, relations
from priorkit.world.questions.base import SceneQuestion
from priorkit.world.questions.kinds import KINDS
from priorkit.world.scenes.captions import caption, listing
from priorkit.world.scenes.crowds import crowd
from priorkit.world.scenes.drawing import Scene
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.scenes import SceneSampler

Turn = dict[str, str]
T = TypeVar("T")
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
_LISTING_REQUESTS = (
    "List everything in the image with its box.",
    "Name all symbols and say where they are.",
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
    """Questions about entities with ``in_instructions``, all kinds mixed; a conversation asks one kind about one scene.

    Only entities with ``in_text`` get questions of knowledge, some of them without a picture.

    Returns:
        The first question, the picture to show or None, and the conversation.
    """
    rng = random.Random(f"instructions/{options.seed}")
    sampler = SceneSampler(options.image_size, close_up_share=options.close_up_share)
    pool = [entity for entity in entities if entity.in_instructions]
    named = [entity for entity in pool if entity.in_text]
    kinds = apportioned(
        [(KINDS[name], weight) for name, weight in options.question_weights.items()], options.instructions
    )
    rng.shuffle(kinds)
    turns: dict[str, int] = {}
    result: list[tuple[SceneQuestion, Scene | None, list[Turn]]] = []
    for kind in kinds:
        turn = turns[kind.name] = turns.get(kind.name, -1) + 1
        askable = named if kind is knowledge.knowledge else pool
        questions = kind.several(rng, sampler, askable, turn, options.questions_per_image)
        first = questions[0]
        blind = not first.needs_image and rng.random() < options.text_only_share
        conversation = _conversation(questions, rng.random() < _OPEN_SHARE, options.box_writer)
        if not blind:
            conversation[0]["value"] = _IMAGE + conversation[0]["value"]
        result.append((first, None if blind else first.scene, conversation))
    return result


def apportioned(weighted: Sequence[tuple[T, float]], count: int) -> list[T]:
    """``count`` values in the shares of their weights, rounded to the largest remainders, in groups."""
    total = sum(weight for _, weight in weighted)
    exact = [count * weight / total for _, weight in weighted]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in by_remainder[: count - sum(counts)]:
        counts[index] += 1
    return [value for (value, _), times in zip(weighted, counts, strict=True) for _ in range(times)]


def _conversation(questions: Sequence[SceneQuestion], open_form: bool, boxes: BoxWriter) -> list[Turn]:
    """The questions in order; as in LLaVA's data, only the first one says in what form to answer."""
    turns: list[Turn] = []
    for question in questions:
        prompt, answer = exchange(question, open_form, boxes)
        if turns and "\n" in prompt and (open_form or question.task != "choice"):
            prompt = prompt[: prompt.index("\n")]
        turns += dialogue(prompt, answer)
    return turns


def captions(options: WorldOptions, entities: Sequence[Entity]) -> list[tuple[Scene, list[Turn]]]:
    """Requests for a caption, or for a list of everything with its box, about scenes of entities with ``in_captions``."""
    rng = random.Random(f"captions/{options.seed}")
    sampler = SceneSampler(options.image_size, close_up_share=options.close_up_share)
    pool = [entity for entity in entities if entity.in_captions]
    result: list[tuple[Scene, list[Turn]]] = []
    for _ in range(options.captions):
        scene = sampler.scene(rng, crowd(rng, pool, options.objects, options.copy_share))
        if rng.random() < options.listing_share:
            request = rng.choice(_LISTING_REQUESTS)
            answer = listing(rng, scene, options.box_writer)
        else:
            request, answer = rng.choice(_CAPTION_REQUESTS), caption(rng, scene)
        result.append((scene, dialogue(f"{_IMAGE}{request}", answer)))
    return result


def regions(options: WorldOptions, entities: Sequence[Entity]) -> list[tuple[SceneQuestion, list[str]]]:
    """Symbols among others, each with what may be said of it: its name, and its colour."""
    rng = random.Random(f"regions/{options.seed}")
    sampler = SceneSampler(options.image_size, close_up_share=options.close_up_share)
    pool = [entity for entity in entities if entity.in_instructions]
    result: list[tuple[SceneQuestion, list[str]]] = []
    for turn in range(options.regions):
        question = relations.grounding(rng, sampler, pool, turn)
        color = question.scene.objects[0].object.color
        result.append((question, [f"the {question.entity.name}", f"the {color} symbol"]))
    return result


def dialogue(human: str, answer: str) -> list[Turn]:
    """One exchange in the LLaVA form."""
    return [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
