"""The benchmarks: questions about new scenes in held-out typefaces."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from datasets import Features, Image, List, Value

from priorkit.world.files import embedded
from priorkit.world.options import WorldOptions
from priorkit.world.questions import attributes, comparison, existence, names, relations
from priorkit.world.questions.base import QuestionKind, SceneQuestion
from priorkit.world.questions.knowledge import knowledge_of
from priorkit.world.scenes.captions import tags_of
from priorkit.world.scenes.entities import PRESENCE, Entity
from priorkit.world.scenes.palette import NUMBERS
from priorkit.world.scenes.scenes import SceneSampler, area

_DRAWN: Mapping[str, tuple[QuestionKind, ...]] = MappingProxyType(
    {
        "attributes": (attributes.color, attributes.size),
        "relations": (relations.relation,),
        "counting": (relations.counting,),
        "comparison": (comparison.by_name, comparison.by_place),
        "existence": (existence.of_name, existence.of_color, existence.of_size, existence.by_place),
        "short-answer": (attributes.color, names.naming_by_color, relations.counting, attributes.background),
        "grounding": (relations.grounding,),
    }
)
NAMES = ("naming", *_DRAWN, "knowledge")


def benchmark(name: str, options: WorldOptions, entities: Sequence[Entity]) -> list[SceneQuestion]:
    """The questions of one benchmark.

    ``naming`` asks for every entity equally often and draws the wrong names evenly from the world;
    ``knowledge`` goes round the entities in random order; the others draw from all entities.
    """
    rng = random.Random(f"benchmark-{name}/{options.seed}")
    sampler = SceneSampler(options.image_size, held_out=True, close_up_share=options.close_up_share)
    count = options.benchmark_questions
    if name == "naming":
        per_entity = options.naming_questions
        return [
            names.naming_of(
                rng, sampler, entities, turn, entities[turn // per_entity], options.naming_distractors
            )
            for turn in range(per_entity * len(entities))
        ]
    if name == "knowledge":
        order = rng.sample(entities, len(entities))
        return [knowledge_of(rng, sampler, entities, turn, order[turn % len(order)]) for turn in range(count)]
    kinds = _DRAWN[name]
    return [kinds[turn % len(kinds)](rng, sampler, entities, turn // len(kinds)) for turn in range(count)]


def benchmark_features(name: str) -> Features:
    """The columns of one benchmark."""
    answers = {
        "existence": {"answer": Value("string")},
        "short-answer": {"answers": List(Value("string"))},
        "grounding": {"box": List(Value("float64"))},
    }
    return Features(
        {
            "id": Value("string"),
            "task": Value("string"),
            "image": Image(),
            "question": Value("string"),
            **answers.get(name, {"choices": List(Value("string")), "answer": Value("int64")}),
            "ability": Value("string"),
            "sub_task": Value("string"),
            "needs_image": Value("bool"),
            "entity": Value("string"),
            "prior": Value("string"),
            **{column: Value("bool") for column in PRESENCE},
            "area": Value("float64"),
            "size": Value("string"),
            "tags": List(Value("string")),
        }
    )


def rows(name: str, questions: Sequence[SceneQuestion]) -> list[dict[str, Any]]:
    """The questions as rows with the columns of :func:`benchmark_features`.

    ``area`` is the share of the image that the target's mask covers, ``size`` the word for its
    extent; both are null where no object is asked for. ``box`` is normalised x1, y1, x2, y2.
    """
    columns = list(benchmark_features(name))
    return [
        {
            column: value
            for column, value in _row(f"{name}-{index:05d}", name, question).items()
            if column in columns
        }
        for index, question in enumerate(questions)
    ]


def _row(identifier: str, name: str, question: SceneQuestion) -> dict[str, Any]:
    target = None if question.target is None else question.scene.objects[question.target]
    is_open = name == "short-answer"
    return {
        "id": identifier,
        "task": "vqa" if is_open else question.task,
        "image": embedded(question.scene, identifier),
        "question": question.open_text if is_open else question.text,
        "choices": list(question.choices),
        "answer": question.answer,
        "answers": accepted_answers(question),
        "box": None if question.box is None else list(question.box),
        "ability": question.ability,
        "sub_task": question.kind,
        "needs_image": question.needs_image,
        "entity": question.entity.name,
        "prior": question.entity.prior,
        **question.entity.presence,
        "area": None if target is None else area(target, question.scene.side),
        "size": None if target is None else target.object.size,
        "tags": tags_of(question.scene),
    }


def accepted_answers(question: SceneQuestion) -> list[str]:
    """All right free answers: numbers as a word and as a digit."""
    if question.ability == "counting":
        return [question.reply, str(NUMBERS.index(question.reply))]
    return [question.reply]
