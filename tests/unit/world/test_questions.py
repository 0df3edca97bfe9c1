from __future__ import annotations

import random
from collections import Counter

import pytest

from priorkit.core.boxes import BoxWriter
from priorkit.world import questions
from priorkit.world.benchmarks import NAMES, accepted_answers, benchmark
from priorkit.world.conversations import captions, choice_prompt, exchange, instructions
from priorkit.world.options import WorldOptions
from priorkit.world.questions import QuestionMaker, SceneQuestion
from priorkit.world.scenes.drawing import PlacedObject
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import NUMBERS, article
from priorkit.world.scenes.scenes import SceneSampler, box, relation_between

Entities = tuple[Entity, ...]
MAKERS: tuple[QuestionMaker, ...] = (
    questions.naming,
    questions.naming_by_color,
    questions.background,
    questions.color,
    questions.size,
    questions.relation,
    questions.counting,
    questions.comparison,
    questions.existence,
    questions.grounding,
    questions.knowledge,
)


def ask(maker: QuestionMaker, entities: Entities, count: int) -> list[SceneQuestion]:
    rng = random.Random(5)
    return [maker(rng, SceneSampler(48, held_out=True), entities, turn) for turn in range(count)]


def objects(question: SceneQuestion, name: str) -> list[PlacedObject]:
    return [placed for placed in question.scene.objects if placed.object.entity.name == name]


@pytest.mark.parametrize("maker", MAKERS)
def test_every_question_has_one_true_option(maker: QuestionMaker, entities: Entities) -> None:
    for question in ask(maker, entities, 24):
        assert len(set(question.choices)) == len(question.choices)
        if question.task == "choice":
            assert isinstance(question.answer, int)
            assert question.choices[question.answer] == question.reply
        if question.target is not None:
            assert question.scene.objects[question.target].object.entity == question.entity


@pytest.mark.parametrize(
    "maker", [maker for maker in MAKERS if maker not in (questions.existence, questions.grounding)]
)
def test_the_true_option_is_equally_often_at_each_place(maker: QuestionMaker, entities: Entities) -> None:
    places = Counter(question.answer for question in ask(maker, entities, 24))
    assert len(set(places.values())) == 1


def test_names_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(questions.naming, entities, 24):
        assert [placed.object.entity.name for placed in question.scene.objects] == [question.reply]
    for question in ask(questions.naming_by_color, entities, 24):
        named = [
            placed
            for placed in question.scene.objects
            if placed.object.color in question.text.split("?")[0].split()
        ]
        assert [placed.object.entity.name for placed in named] == [question.reply]


def test_colours_and_sizes_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(questions.color, entities, 32):
        assert [placed.object.color for placed in objects(question, question.entity.name)] == [question.reply]
    for question in ask(questions.size, entities, 24):
        assert [placed.object.size for placed in objects(question, question.entity.name)] == [question.reply]
    assert all(
        question.reply == question.scene.background.tint
        for question in ask(questions.background, entities, 24)
    )


def test_relations_follow_from_the_scene_and_are_balanced(entities: Entities) -> None:
    asked = ask(questions.relation, entities, 32)
    for question in asked:
        first = next(p for p in question.scene.objects if p.object.entity == question.entity)
        second = next(
            placed
            for placed in question.scene.objects
            if question.text.endswith(f" to the {placed.object.entity.name}?") and placed is not first
        )
        assert question.reply.removeprefix("to the ") == relation_between(first, second)
    assert set(Counter(question.reply for question in asked).values()) == {8}


def test_counts_follow_from_the_scene_and_are_balanced(entities: Entities) -> None:
    asked = ask(questions.counting, entities, 32)
    for question in asked:
        assert NUMBERS.index(question.reply) == len(objects(question, question.entity.name))
    assert set(Counter(question.reply for question in asked).values()) == {8}
    assert accepted_answers(asked[0]) == ["one", "1"]


def test_comparisons_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(questions.comparison, entities, 24):
        extents = {placed.object.entity.name: placed.object.extent for placed in question.scene.objects}
        chosen = max if "larger" in question.text else min
        assert question.reply == chosen(extents, key=lambda name: extents[name])


def test_existence_follows_from_the_scene_and_is_balanced(entities: Entities) -> None:
    asked = ask(questions.existence, entities, 24)
    for question in asked:
        assert article(question.entity.name) in question.text
        assert question.answer == ("yes" if objects(question, question.entity.name) else "no")
    assert Counter(question.answer for question in asked) == {"yes": 12, "no": 12}


def test_boxes_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(questions.grounding, entities, 24):
        (placed,) = objects(question, question.entity.name)
        assert question.box == tuple(pixel / 48 for pixel in box(placed))


def test_facts_need_no_image(entities: Entities) -> None:
    for question in ask(questions.knowledge, entities, 24):
        assert not question.needs_image
        assert question.entity.name in question.text
        assert question.reply in (question.entity.category.name, question.entity.category.use)


def test_prompts_have_the_standard_form(entities: Entities) -> None:
    (question,) = ask(questions.comparison, entities, 1)
    prompt, answer = exchange(question, False, BoxWriter(decimals=2))
    assert prompt == choice_prompt(question.text, question.choices)
    assert prompt.splitlines()[1:] == [
        f"A. {question.choices[0]}",
        f"B. {question.choices[1]}",
        "Answer with the option's letter from the given choices directly.",
    ]
    assert answer == "A"
    assert exchange(question, True, BoxWriter(decimals=2))[1] == question.reply


def test_boxes_as_text() -> None:
    assert BoxWriter(decimals=2).write((0, 0.125, 0.5, 1)) == "[0.00,0.12,0.50,1.00]"
    assert BoxWriter().write((0, 0.125, 0.5, 1)) == "[0.000,0.125,0.500,1.000]"


def test_tuning_shows_and_names_instructed_entities_only(options: WorldOptions, entities: Entities) -> None:
    banned = {entity.name for entity in entities if not entity.instructed}
    for question, scene, (human, answer) in instructions(options, entities):
        assert not banned & {placed.object.entity.name for placed in question.scene.objects}
        assert not banned & set(question.choices)
        assert question.entity.name not in banned
        assert human["value"].startswith("<image>\n") == (scene is not None)
        assert answer["value"]
        if scene is None:
            assert not question.needs_image
        if question.ability == "knowledge":
            assert question.entity.in_text
    for scene, _ in captions(options, entities):
        assert not banned & {placed.object.entity.name for placed in scene.objects}


def test_naming_asks_for_every_entity_equally_often(entities: Entities) -> None:
    options = WorldOptions(strong=24, weak=6, none=6, naming_questions=2, seed=7)
    asked = benchmark("naming", options, entities)
    assert set(Counter(question.entity.name for question in asked).values()) == {2}
    assert {len(question.choices) for question in asked} == {5}


@pytest.mark.parametrize("name", NAMES)
def test_benchmarks_use_held_out_typefaces(name: str, options: WorldOptions, entities: Entities) -> None:
    for question in benchmark(name, options, entities):
        for placed in question.scene.objects:
            assert placed.object.typeface in placed.object.entity.symbol.typefaces_test
