from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from priorkit.core.errors import UsageError
from priorkit.core.options.specs import build
from priorkit.world.options import WorldOptions
from priorkit.world.scenes.entities import (
    PRESENCE,
    catalogue,
    choose_entities,
    readable_name,
    similar_pairs,
)
from priorkit.world.scenes.fonts import TEST_TYPEFACES, TRAIN_TYPEFACES, glyph
from priorkit.world.scenes.palette import NUMBERS


def test_the_default_world_has_its_groups_over_all_categories() -> None:
    options = WorldOptions()
    entities = choose_entities(options)
    assert Counter(entity.prior for entity in entities) == {"strong": 170, "weak": 45, "none": 55}
    by_category = Counter(entity.category.name for entity in entities)
    assert set(by_category) == {symbol.category.name for symbol in catalogue()}
    absent = Counter(entity.category.name for entity in entities if entity.prior == "none")
    for category, count in by_category.items():
        assert absent[category] <= 0.5 * count + 1


def test_text_and_instructions_are_independent_of_the_prior_and_of_each_other() -> None:
    entities = choose_entities(
        WorldOptions(strong=160, weak=48, none=48, text_share=0.75, instructed_share=0.75)
    )
    for prior, size in (("strong", 160), ("weak", 48), ("none", 48)):
        table = Counter(
            (entity.in_text, entity.in_instructions) for entity in entities if entity.prior == prior
        )
        assert table[True, True] == size * 9 / 16
        assert table[True, False] == table[False, True] == size * 3 / 16


def test_presence_in_the_training_data_is_planted_in_all_combinations() -> None:
    options = WorldOptions(
        strong=160, weak=0, none=160, text_share=0.5, instructed_share=0.5, captioned_share=0.5
    )
    combinations = Counter(
        tuple(entity.presence[column] for column in PRESENCE) for entity in choose_entities(options)
    )
    assert combinations == dict.fromkeys(product((True, False), repeat=4), 20)


def test_captions_show_the_instructed_entities_unless_drawn_independently() -> None:
    usual = choose_entities(WorldOptions())
    assert all(entity.in_captions == entity.in_instructions for entity in usual)
    drawn = choose_entities(WorldOptions(captioned_share=0.5))
    assert [replace(entity, in_captions=entity.in_instructions) for entity in drawn] == list(usual)


def test_too_few_entities_in_captions_are_refused() -> None:
    with pytest.raises(UsageError, match=r"captions show 2\.7 entities"):
        build(WorldOptions, {"captioned_share": 0.01})


def test_names_are_unique_and_ordinary_words() -> None:
    names = [symbol.name for symbol in catalogue()]
    assert len({name.casefold() for name in names}) == len(names)
    assert all(name.replace(" ", "").isascii() and name.replace(" ", "").isalpha() for name in names)
    assert all(len(name.split()) <= 6 for name in names)


def test_names_are_the_official_ones() -> None:
    for symbol in catalogue():
        official = unicodedata.name(symbol.character).lower().replace("-", " ").split()
        kept = [word for word in official if word != "letter"]
        spelled = [NUMBERS[int(word)] if word.isdecimal() else word for word in kept]
        assert symbol.name.split()[: len(spelled)] == spelled


@pytest.mark.parametrize(
    ("character", "ending", "name"),
    [("♛", "", "black chess queen"), ("⚀", "", "die face one"), ("∀", "sign", "for all sign")],
)
def test_readable_names(character: str, ending: str, name: str) -> None:
    assert readable_name(character, ending) == name


def test_typefaces_of_training_and_test_are_disjoint_and_draw_every_symbol() -> None:
    assert not set(TRAIN_TYPEFACES) & set(TEST_TYPEFACES)
    for symbol in catalogue():
        assert symbol.typefaces_train
        assert symbol.typefaces_test
        assert set(symbol.typefaces_train) <= set(TRAIN_TYPEFACES)
        assert set(symbol.typefaces_test) <= set(TEST_TYPEFACES)
        faces = symbol.typefaces_train + symbol.typefaces_test
        assert len(faces) >= 3
        assert all(glyph(face, symbol.character) is not None for face in faces)


def test_no_two_symbols_are_similar() -> None:
    assert similar_pairs(list(catalogue())) == []


def test_similar_symbols_are_found() -> None:
    bold, plain = (next(s for s in catalogue() if s.character == character) for character in "♛♛")
    assert similar_pairs([bold, plain]) == [(bold.name, plain.name)]


def test_another_seed_gives_other_groups() -> None:
    first, second = (choose_entities(WorldOptions(seed=seed)) for seed in (0, 1))
    assert [entity.name for entity in first if entity.prior == "none"] != [
        entity.name for entity in second if entity.prior == "none"
    ]


def test_more_entities_than_symbols_are_refused() -> None:
    with pytest.raises(UsageError, match="symbols of the catalogue"):
        choose_entities(WorldOptions(strong=5000))


def test_all_problems_of_the_options_are_reported_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        build(WorldOptions, {"image_size": 8, "text_share": 1.5})
    assert {problem.where for problem in caught.value.problems} == {"--image-size", "--text-share"}


def test_options_that_make_no_world_together_are_refused() -> None:
    with pytest.raises(UsageError, match="need more than 5 pairs"):
        build(WorldOptions, {"pairs": 5})
