"""MLE-Bench: bins, targets, wrong options, balance, determinism."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.mle_bench.annotations import AnnotatedImage, Placement
from priorkit.mle_bench.questions import (
    BINS,
    QUESTIONS,
    build,
    choose_targets,
    read_wordings,
    size_of,
    unsettled,
)
from priorkit.mle_bench.synonyms import Synonyms, pair_of, read_synonyms

SMALL, MEDIUM, LARGE = BINS
NAMES = [f"thing {number}" for number in range(12)]


def annotated(name: str, areas: Mapping[str, float]) -> AnnotatedImage:
    return AnnotatedImage(ImageRef(name), {key: Placement(area, 0.5) for key, area in areas.items()})


def images() -> list[AnnotatedImage]:
    areas = [{"thing 0": 0.1, "thing 1": 0.5}, {"thing 2": 0.7, "thing 3": 0.05}, {"thing 4": 0.2}]
    return [annotated(f"{number}.png", areas[number % 3]) for number in range(48)]


def test_bins_hold_their_lower_edge() -> None:
    assert [size_of(area) for area in (0.001, 0.2999, 0.3, 0.5999, 0.6, 1.0)] == [
        SMALL, SMALL, MEDIUM, MEDIUM, LARGE, LARGE,
    ]  # fmt: skip


def test_an_image_goes_to_the_rarer_bin_and_bins_are_capped() -> None:
    targets = choose_targets(images(), 1, 0)
    assert Counter(target.size for target in targets) == dict.fromkeys(BINS, 16)
    assert {(target.name, target.size) for target in targets} == {
        ("thing 1", MEDIUM), ("thing 2", LARGE), ("thing 4", SMALL),
    }  # fmt: skip
    capped = choose_targets(images(), 1, 5)
    assert Counter(target.size for target in capped) == dict.fromkeys(BINS, 5)
    assert [t.ref.name for t in capped] == [t.ref.name for t in targets if t in capped]


def test_wrong_options_are_absent_and_answers_balanced() -> None:
    questions, without = build(choose_targets(images(), 1, 0), NAMES, Synonyms(), 1)
    assert not without
    for question in questions:
        assert question.answer == question.target.name
        assert question.choices.count(question.answer) == 1
        wrong = [name for name in question.choices if name != question.target.name]
        assert len(set(wrong)) == 3
        assert not set(wrong) & set(question.target.present)
    for size in BINS:
        of_size = [question for question in questions if question.target.size == size]
        places = Counter(question.choices.index(question.answer) for question in of_size)
        assert places == dict.fromkeys(range(4), 4)
        assert set(Counter(question.text for question in of_size).values()) <= {5, 6}


def test_the_seed_decides() -> None:
    first, _ = build(choose_targets(images(), 1, 5), NAMES, Synonyms(), 1)
    again, _ = build(choose_targets(images(), 1, 5), NAMES[::-1], Synonyms(), 1)
    other, _ = build(choose_targets(images(), 2, 5), NAMES, Synonyms(), 2)
    assert first == again
    assert first != other


def test_synonyms_and_head_nouns_are_no_wrong_options() -> None:
    shown = [annotated("a.png", {"coffee table": 0.4, "sofa": 0.1})]
    synonyms = Synonyms([["Sofa", "couch"], ["cat", "kitten"]])
    vocabulary = ["coffee table", "table", "sofa", "couch", "cat", "kitten", "dog", "stable"]
    (question,), _ = build(choose_targets(shown, 3, 0), vocabulary, synonyms, 3)
    assert set(question.choices) <= {"coffee table", "sofa", "cat", "kitten", "dog", "stable"}
    assert len({"cat", "kitten"} & set(question.choices)) == 1


def test_too_small_a_vocabulary_leaves_images_out() -> None:
    questions, without = build(choose_targets(images(), 1, 0), NAMES[:4], Synonyms(), 1)
    assert {target.name for target in without} == {"thing 1", "thing 2"}
    assert {question.target.name for question in questions} == {"thing 4"}


GROUPED = [
    "sofa",
    "couch",
    "settee",
    "cat",
    "kitten",
    "dog",
    "boat",
    "ship",
    "tree",
    "coffee table",
    "table",
    "sky",
]


@given(
    groups=st.lists(st.lists(st.sampled_from(GROUPED), min_size=2, max_size=4, unique=True), max_size=6),
    present=st.lists(st.sampled_from(GROUPED), min_size=1, max_size=3, unique=True),
    seed=st.integers(0, 99),
    upper=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_no_wrong_option_is_a_synonym_of_anything_shown(groups, present, seed, upper) -> None:
    synonyms = Synonyms([[name.upper() for name in group] if upper else group for group in groups])
    shown = [annotated("a.png", {name: 0.1 + 0.2 * n for n, name in enumerate(present)})]
    questions, without = build(choose_targets(shown, seed, 0), GROUPED, synonyms, seed)
    assert len(questions) + len(without) == 1

    def alike(one: str, two: str) -> bool:
        together = any(one in group and two in group for group in groups)
        return together or one == two or {one, two} == {"table", "coffee table"}

    for question in questions:
        wrong = [name for name in question.choices if name != question.answer]
        assert len(wrong) == 3
        assert not any(alike(name, other) for name in wrong for other in present)
        assert not any(alike(one, two) for place, one in enumerate(wrong) for two in wrong[:place])
    free = [name for name in GROUPED if not any(alike(name, other) for other in present)]
    possible = any(
        not (alike(one, two) or alike(one, three) or alike(two, three))
        for one, two, three in itertools.combinations(free, 3)
    )
    assert bool(questions) == possible


@given(same=st.sets(st.tuples(st.sampled_from(GROUPED), st.sampled_from(GROUPED))), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_judging_as_needed_gives_what_judging_all_pairs_gives(same, seed) -> None:
    truth = {pair_of(*pair) for pair in same}
    shown = [annotated(f"{n}.png", {GROUPED[n % 12]: 0.1, GROUPED[(5 * n + 1) % 12]: 0.5}) for n in range(8)]
    targets = choose_targets(shown, seed, 0)
    lazy, complete = Synonyms(), Synonyms()
    asked: list[tuple[str, str]] = []
    while pairs := unsettled(targets, GROUPED, lazy, seed):
        assert not set(pairs) & set(asked)
        asked += pairs
        lazy.add({pair: pair in truth for pair in pairs})
    complete.add({pair_of(one, two): pair_of(one, two) in truth for one in GROUPED for two in GROUPED})
    assert build(targets, GROUPED, lazy, seed) == build(targets, GROUPED, complete, seed)


def test_synonyms_are_read_in_three_forms(tmp_path: Path) -> None:
    forms = {
        "a.txt": "# groups\n\nSofa, couch ,davenport\ncoffee table, cocktail table\n",
        "a.tsv": "sofa\tCouch\tdavenport\ncoffee_table\tcocktail_table\n",
        "a.json": '[["sofa", "couch", "davenport"], ["coffee_table", "cocktail table"]]',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        synonyms = read_synonyms(tmp_path / name)
        assert synonyms.count == 2
        assert synonyms.same("SOFA", "davenport")
        assert synonyms.same("coffee table", "Cocktail  Table")
        assert not synonyms.same("sofa", "cocktail table")
        assert synonyms.known(["couch", "dog", "Coffee Table"]) == 2


def test_groups_do_not_join_by_a_name_of_several_senses() -> None:
    synonyms = Synonyms([["crane", "heron"], ["crane", "derrick"]])
    assert synonyms.same("crane", "heron")
    assert synonyms.same("crane", "derrick")
    assert not synonyms.same("heron", "derrick")


@pytest.mark.parametrize(
    ("name", "text", "problems"),
    [
        ("a.txt", "# groups\nsofa, couch\nchair\nbed,\n", ("a.txt:3: expected two names", "a.txt:4")),
        ("a.txt", "sofa, couch, SOFA\n", ("a.txt:1: 'sofa' and 'SOFA' are the same name",)),
        ("a.txt", "dining_table, dining table\n", ("are the same name",)),
        ("a.txt", "# nothing\n", ("no group of synonyms",)),
        ("a.json", '[["sofa", "couch"], ["chair"]]', ("a.json group 2: expected two names or more, got 1",)),
        ("a.json", '[["sofa", 3]]', ("group 1: a name must be text",)),
        ("a.json", '{"sofa": "couch"}', ("expected a list of groups",)),
        ("a.json", "[[", ("a.json:1: not valid JSON",)),
    ],
)
def test_bad_synonym_files_name_every_bad_group(tmp_path: Path, name: str, text: str, problems) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_synonyms(tmp_path / name)
    for problem in problems:
        assert problem in str(caught.value)


def test_a_file_of_another_encoding_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("caf\u00e9, bistro\n".encode("latin-1"))
    for read in (read_synonyms, read_wordings):
        with pytest.raises(InputError, match="not UTF-8 text"):
            read(file)


def test_wordings_are_spread_evenly_and_list_the_options(tmp_path: Path) -> None:
    file = tmp_path / "wordings.txt"
    file.write_text("# two\nWhat is shown?\n\nIs it {options}?\n", encoding="utf-8")
    wordings = read_wordings(file)
    assert wordings == ("What is shown?", "Is it {options}?")
    questions, _ = build(choose_targets(images(), 1, 0), NAMES, Synonyms(), 1, wordings)
    for size in BINS:
        of_size = [question for question in questions if question.target.size == size]
        assert Counter(question.text == "What is shown?" for question in of_size) == {True: 8, False: 8}
    for question in questions:
        a, b, c, d = question.choices
        assert question.text in ("What is shown?", f"Is it {a}, {b}, {c} or {d}?")
    usual, _ = build(choose_targets(images(), 1, 0), NAMES, Synonyms(), 1)
    assert {question.text for question in usual} == set(QUESTIONS)
    # The wording does not affect which object a question is about.
    assert [question.choices for question in usual] == [question.choices for question in questions]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("What is shown?\nIs {name} here?\nWhat {\n", ("txt:2: a wording contains {options} once", "txt:3")),
        ("{options} or {options}?\n", ("txt:1: a wording contains {options} once",)),
        ("{options}\n", ("only {options}",)),
        ("What is shown?\nwhat is  SHOWN?\n", ("txt:2: 'what is  SHOWN?' is a duplicate",)),
        ("# none\n\n", ("holds no wording",)),
    ],
)
def test_bad_wordings_are_named(tmp_path: Path, text: str, problems) -> None:
    file = tmp_path / "wordings.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_wordings(file)
    for problem in problems:
        assert problem in str(caught.value)
