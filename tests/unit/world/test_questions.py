from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.boxes import BoxWriter
from priorkit.core.errors import UsageError
from priorkit.core.options.specs import build as build_settings
from priorkit.world.benchmarks import NAMES, accepted_answers, benchmark
from priorkit.world.conversations import apportioned, captions, choice_prompt, exchange, instructions
from priorkit.world.options import QUESTION_SHARES, WorldOptions
from priorkit.world.questions import attributes, comparison, existence, knowledge, names, relations
from priorkit.world.questions.base import QuestionKind, SceneQuestion
from priorkit.world.questions.kinds import KINDS
from priorkit.world.scenes.captions import POSITIONS, empty_positions, position_phrase
from priorkit.world.scenes.drawing import PlacedObject
from priorkit.world.scenes.entities import Entity, choose_entities
from priorkit.world.scenes.palette import INKS, NUMBERS, SIZE_WORDS, article
from priorkit.world.scenes.scenes import SceneSampler, box, normalised_box, relation_between

Entities = tuple[Entity, ...]
EXISTENCE = (existence.of_name, existence.of_color, existence.of_size, existence.by_place)


def ask(kind: QuestionKind, entities: Entities, count: int) -> list[SceneQuestion]:
    rng = random.Random(5)
    return [kind(rng, SceneSampler(48, held_out=True), entities, turn) for turn in range(count)]


def objects(question: SceneQuestion, name: str) -> list[PlacedObject]:
    return [placed for placed in question.scene.objects if placed.object.entity.name == name]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_question_has_one_true_option(kind: QuestionKind, entities: Entities) -> None:
    for question in ask(kind, entities, 24):
        assert len(set(question.choices)) == len(question.choices)
        if question.task == "choice":
            assert isinstance(question.answer, int)
            assert question.choices[question.answer] == question.reply
        if question.target is not None:
            assert question.scene.objects[question.target].object.entity == question.entity


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS.values() if kind not in (*EXISTENCE, relations.grounding)],
)
def test_the_true_option_is_equally_often_at_each_place(kind: QuestionKind, entities: Entities) -> None:
    places = Counter(question.answer for question in ask(kind, entities, 24))
    assert len(set(places.values())) == 1


def test_names_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(names.naming, entities, 24):
        assert [placed.object.entity.name for placed in question.scene.objects] == [question.reply]
    for question in ask(names.naming_by_color, entities, 24):
        named = [
            placed
            for placed in question.scene.objects
            if placed.object.color in question.text.split("?")[0].split()
        ]
        assert [placed.object.entity.name for placed in named] == [question.reply]


def test_colours_and_sizes_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(attributes.color, entities, 32):
        assert [placed.object.color for placed in objects(question, question.entity.name)] == [question.reply]
    for question in ask(attributes.size, entities, 24):
        assert [placed.object.size for placed in objects(question, question.entity.name)] == [question.reply]
    assert all(
        question.reply == question.scene.background.tint
        for question in ask(attributes.background, entities, 24)
    )


def test_relations_follow_from_the_scene_and_are_balanced(entities: Entities) -> None:
    asked = ask(relations.relation, entities, 32)
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
    asked = ask(relations.counting, entities, 32)
    for question in asked:
        assert NUMBERS.index(question.reply) == len(objects(question, question.entity.name))
    assert set(Counter(question.reply for question in asked).values()) == {8}
    assert accepted_answers(asked[0]) == ["one", "1"]


def test_comparisons_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(comparison.by_name, entities, 24):
        extents = {placed.object.entity.name: placed.object.extent for placed in question.scene.objects}
        chosen = max if "larger" in question.text else min
        assert question.reply == chosen(extents, key=lambda name: extents[name])


def test_comparisons_of_places_follow_from_the_scene(entities: Entities) -> None:
    replies: Counter[str] = Counter()
    for question in ask(comparison.by_place, entities, 48):
        first, second = question.scene.objects
        true = max(first, second, key=lambda placed: placed.object.extent)
        relation = relation_between(true, second if true is first else first)
        assert question.reply == {
            "left of": "left", "right of": "right", "above": "upper", "below": "lower"
        }[relation or ""]  # fmt: skip
        assert question.scene.objects[question.target or 0] is true
        replies[question.reply] += 1
    assert min(replies[reply] for reply in ("left", "right", "upper", "lower")) >= 4


def test_existence_follows_from_the_scene_and_is_balanced(entities: Entities) -> None:
    asked = ask(existence.of_name, entities, 24)
    for question in asked:
        assert article(question.entity.name) in question.text
        assert question.answer == ("yes" if objects(question, question.entity.name) else "no")
    assert Counter(question.answer for question in asked) == {"yes": 12, "no": 12}


def test_existence_of_colors_follows_from_the_scene_and_is_balanced(entities: Entities) -> None:
    asked = ask(existence.of_color, entities, 24)
    for question in asked:
        assert question.answer == ("yes" if color_in(question) in shown_colors(question) else "no")
    assert Counter(question.answer for question in asked) == {"yes": 12, "no": 12}


def test_existence_of_sizes_follows_from_the_scene_and_not_from_the_size(entities: Entities) -> None:
    answers: Counter[tuple[str, object]] = Counter()
    for question in ask(existence.of_size, entities, 24):
        size = size_in(question)
        assert question.answer == ("yes" if size in shown_sizes(question) else "no")
        answers[size, question.answer] += 1
    assert answers == {(size, answer): 4 for size in SIZE_WORDS for answer in ("yes", "no")}


def size_in(question: SceneQuestion) -> str:
    (size,) = [size for size in SIZE_WORDS if f"a {size} symbol" in question.text]
    return size


def shown_sizes(question: SceneQuestion) -> set[str]:
    return {placed.object.size for placed in question.scene.objects}


def test_existence_at_places_follows_from_the_scene_and_not_from_the_place(entities: Entities) -> None:
    answers: Counter[tuple[str, object]] = Counter()
    for question in ask(existence.by_place, entities, 36):
        position = position_in(question)
        assert question.answer == ("yes" if position in taken_positions(question) else "no")
        assert question.answer == "yes" or position in empty_positions(question.scene)
        answers[position, question.answer] += 1
    assert answers == {(position, answer): 2 for position in POSITIONS for answer in ("yes", "no")}


def test_a_position_is_empty_where_no_box_touches_its_ninth(entities: Entities) -> None:
    rng, sampler = random.Random(2), SceneSampler(48)
    for _ in range(50):
        scene = sampler.scene(rng, rng.sample(entities, 2))
        boxes = [box(placed) for placed in scene.objects]
        pixels = {
            (row, column)
            for left, top, right, bottom in boxes
            for row in range(top, bottom)
            for column in range(left, right)
        }
        empty = [
            POSITIONS[3 * row + column]
            for row in range(3)
            for column in range(3)
            if not any((16 * row + y, 16 * column + x) in pixels for y in range(16) for x in range(16))
        ]
        assert empty_positions(scene) == empty


def position_in(question: SceneQuestion) -> str:
    (position,) = [position for position in POSITIONS if question.text.endswith(f" {position}?")]
    return position


def taken_positions(question: SceneQuestion) -> set[str]:
    return {position_phrase(placed, question.scene.side) for placed in question.scene.objects}


@pytest.mark.parametrize("kind", EXISTENCE, ids=lambda kind: kind.name)
def test_earlier_answers_do_not_reveal_whether_something_is_there(
    kind: QuestionKind, entities: Entities
) -> None:
    rng, sampler = random.Random(8), SceneSampler(48)
    after: dict[tuple[object, ...], list[bool]] = {}
    for turn in range(1200):
        answers = [question.answer for question in kind.several(rng, sampler, entities, turn, 6)]
        for place in range(1, len(answers)):
            after.setdefault(tuple(answers[:place]), []).append(answers[place] == "yes")
    common = {history: later for history, later in after.items() if len(later) >= 80}
    assert len(common) >= 4
    for history, later in common.items():
        share, error = sum(later) / len(later), 0.5 / len(later) ** 0.5
        assert abs(share - 0.5) < 4 * error, history


def color_in(question: SceneQuestion) -> str:
    (color,) = [ink for ink in INKS if f"{ink} symbol" in question.text]
    return color


def shown_colors(question: SceneQuestion) -> set[str]:
    return {placed.object.color for placed in question.scene.objects}


def test_boxes_follow_from_the_scene(entities: Entities) -> None:
    for question in ask(relations.grounding, entities, 24):
        (placed,) = objects(question, question.entity.name)
        assert question.box == tuple(pixel / 48 for pixel in box(placed))


def test_facts_need_no_image(entities: Entities) -> None:
    for question in ask(knowledge.knowledge, entities, 24):
        assert not question.needs_image
        assert question.entity.name in question.text
        assert question.reply in (question.entity.category.name, question.entity.category.use)


def test_prompts_have_the_standard_form(entities: Entities) -> None:
    (question,) = ask(comparison.by_name, entities, 1)
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


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_further_questions_are_about_the_same_scene_and_true(kind: QuestionKind, entities: Entities) -> None:
    rng, sampler = random.Random(3), SceneSampler(48)
    for turn in range(24):
        asked = kind.several(rng, sampler, entities, turn, 3)
        assert 1 <= len(asked) <= 3
        for question in asked:
            assert question.scene is asked[0].scene
            assert question.kind == kind.name
            assert_true(question)


def assert_true(question: SceneQuestion) -> None:
    """The answer follows from the scene."""
    shown = objects(question, question.entity.name)
    items = [placed.object for placed in shown]
    match question.ability:
        case "grounding":
            assert question.box == normalised_box(shown[0], question.scene.side)
        case "existence" if question.kind == "existence-by-color":
            assert question.answer == ("yes" if color_in(question) in shown_colors(question) else "no")
        case "existence" if question.kind == "existence-by-size":
            assert (size_in(question) in shown_sizes(question)) == (question.answer == "yes")
        case "existence" if question.kind == "existence-by-place":
            assert (position_in(question) in taken_positions(question)) == (question.answer == "yes")
        case "existence":
            assert question.answer == ("yes" if shown else "no")
        case "counting":
            assert question.reply == NUMBERS[len(shown)]
        case "attribute":
            assert question.reply in (items[0].color, items[0].size)
        case "relation":
            by_name = {placed.object.entity.name: placed for placed in question.scene.objects}
            other = next(name for name in by_name if question.text.endswith(f" to the {name}?"))
            assert question.reply.removeprefix("to the ") == relation_between(shown[0], by_name[other])
        case "comparison":
            extents = {placed.object.extent for placed in question.scene.objects}
            assert items[0].extent == (max(extents) if "larger" in question.text else min(extents))
        case "knowledge":
            assert question.reply in (question.entity.category.name, question.entity.category.use)
        case "perception":
            tint = question.scene.background.tint
            assert question.reply == (tint if "background" in question.text else question.entity.name)


def test_only_the_first_question_says_how_to_answer(options: WorldOptions, entities: Entities) -> None:
    several = 0
    for _, _, turns in instructions(options, entities):
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
        assert len(turns) <= 2 * options.questions_per_image
        for turn in turns[2::2]:
            several += 1
            lettered = "\nA. " in turn["value"]
            assert lettered == ("\nA. " in turns[0]["value"])
            assert lettered or "\n" not in turn["value"]
    assert several > len(instructions(options, entities)) // 4


def test_kinds_of_questions_have_the_shares_asked_for(options: WorldOptions, entities: Entities) -> None:
    assert set(QUESTION_SHARES) == set(KINDS)
    chosen = options.model_copy(
        update={"question_share": {"counting": 3, "grounding": 1}, "instructions": 41}
    )
    abilities = Counter(question.ability for question, _, _ in instructions(chosen, entities))
    assert abilities == {"counting": 31, "grounding": 10}


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=12), st.integers(1, 500))
def test_shares_are_rounded_to_the_nearest_counts(weights: list[float], count: int) -> None:
    counts = Counter(apportioned(list(enumerate(weights)), count))
    assert counts.total() == count
    for index, weight in enumerate(weights):
        assert abs(counts[index] - count * weight / sum(weights)) < 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"objects": "1,2,3,4,5"}, "objects must be 1 to 4 weights from 0"),
        ({"objects": "0,0"}, "the weights of objects are all 0"),
        ({"question_share": "counts=1"}, "no question is of the kind counts; the kinds are naming"),
        ({"question_share": "color=0"}, "not all 0"),
    ],
)
def test_scenes_and_questions_that_cannot_be_made_are_refused(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build_settings(WorldOptions, values)


def test_tuning_shows_and_names_instructed_entities_only(options: WorldOptions, entities: Entities) -> None:
    banned = {entity.name for entity in entities if not entity.in_instructions}
    for question, scene, (human, answer, *_) in instructions(options, entities):
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


def test_captions_show_only_their_entities_where_these_are_drawn(options: WorldOptions) -> None:
    planted = options.model_copy(update={"captioned_share": 0.5})
    entities = choose_entities(planted)
    absent = {entity.name for entity in entities if not entity.in_captions}
    assert any(entity.in_instructions for entity in entities if entity.name in absent)
    for scene, _ in captions(planted, entities):
        assert not absent & {placed.object.entity.name for placed in scene.objects}


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
