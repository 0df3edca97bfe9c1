"""MLE-Bench: bins, targets, wrong options, balance, determinism."""

from __future__ import annotations

from collections import Counter

import pytest

from priorkit.core.errors import InputError
from priorkit.data.images import ImageRef
from priorkit.evals.annotated import AnnotatedImage
from priorkit.evals.existence import Synonyms, build, choose_targets, read_synonyms, size_of

NAMES = [f"thing {number}" for number in range(12)]


def images() -> list[AnnotatedImage]:
    areas = [{"thing 0": 0.1, "thing 1": 0.5}, {"thing 2": 0.7, "thing 3": 0.05}, {"thing 4": 0.2}]
    return [AnnotatedImage(ImageRef(f"{number}.png"), areas[number % 3]) for number in range(48)]


def test_bins_hold_their_lower_edge() -> None:
    assert [size_of(area) for area in (0.001, 0.2999, 0.3, 0.5999, 0.6, 1.0)] == [
        "small", "small", "medium", "medium", "large", "large",
    ]  # fmt: skip


def test_an_image_goes_to_the_rarer_bin_and_bins_are_capped() -> None:
    targets = choose_targets(images(), 1, 0)
    assert Counter(target.size for target in targets) == {"small": 16, "medium": 16, "large": 16}
    assert {(target.name, target.size) for target in targets} == {
        ("thing 1", "medium"), ("thing 2", "large"), ("thing 4", "small"),
    }  # fmt: skip
    capped = choose_targets(images(), 1, 5)
    assert Counter(target.size for target in capped) == {"small": 5, "medium": 5, "large": 5}
    assert [t.ref.name for t in capped] == [t.ref.name for t in targets if t in capped]


def test_wrong_options_are_absent_and_answers_balanced() -> None:
    questions, without = build(choose_targets(images(), 1, 0), NAMES, Synonyms(), 1)
    assert not without
    for question in questions:
        place = "ABCD".index(question.answer)
        assert question.choices[place] == question.target.name
        wrong = [name for name in question.choices if name != question.target.name]
        assert len(set(wrong)) == 3
        assert not set(wrong) & set(question.target.present)
    for size in ("small", "medium", "large"):
        own = [question for question in questions if question.target.size == size]
        assert Counter(question.answer for question in own) == dict.fromkeys("ABCD", 4)
        assert set(Counter(question.text for question in own).values()) <= {5, 6}


def test_the_seed_decides() -> None:
    first, _ = build(choose_targets(images(), 1, 5), NAMES, Synonyms(), 1)
    again, _ = build(choose_targets(images(), 1, 5), NAMES[::-1], Synonyms(), 1)
    other, _ = build(choose_targets(images(), 2, 5), NAMES, Synonyms(), 2)
    assert first == again
    assert first != other


def test_synonyms_and_head_nouns_are_no_wrong_options() -> None:
    shown = [AnnotatedImage(ImageRef("a.png"), {"coffee table": 0.4, "sofa": 0.1})]
    synonyms = Synonyms([["Sofa", "couch"], ["cat", "kitten"]])
    vocabulary = ["coffee table", "table", "sofa", "couch", "cat", "kitten", "dog", "stable"]
    (question,), _ = build(choose_targets(shown, 3, 0), vocabulary, synonyms, 3)
    assert set(question.choices) <= {"coffee table", "sofa", "cat", "kitten", "dog", "stable"}
    assert len({"cat", "kitten"} & set(question.choices)) == 1


def test_too_small_a_vocabulary_leaves_images_out() -> None:
    questions, without = build(choose_targets(images(), 1, 0), NAMES[:4], Synonyms(), 1)
    assert {target.name for target in without} == {"thing 1", "thing 2"}
    assert {question.target.name for question in questions} == {"thing 4"}


def test_synonym_file_names_its_bad_line(tmp_path) -> None:
    file = tmp_path / "synonyms.txt"
    file.write_text("# groups\nsofa, couch\nchair\n", encoding="utf-8")
    with pytest.raises(InputError, match="txt:3"):
        read_synonyms(file)
