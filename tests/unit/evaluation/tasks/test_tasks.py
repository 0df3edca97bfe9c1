"""Task types and readings beyond the golden files: strict yes/no, MME's pairs, ranking, mixed, OCR, blind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from priorkit.analysis.evaluation_comparison import compare
from priorkit.core.errors import InputError
from priorkit.data.images.decoding import ImageRef
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.results.abstention import with_abstention
from priorkit.evaluation.results.predictions import read_answers
from priorkit.evaluation.runner.image_shuffling import shuffle_images
from priorkit.evaluation.tasks.base import BoxSpace, ScoringOptions, TaskScores
from priorkit.evaluation.tasks.choice import CHOICE, rotated
from priorkit.evaluation.tasks.grounding import GROUNDING
from priorkit.evaluation.tasks.item import Item, ModelAnswer
from priorkit.evaluation.tasks.mixed import MIXED
from priorkit.evaluation.tasks.ranking import RANKING
from priorkit.evaluation.tasks.registry import TASKS
from priorkit.evaluation.tasks.short_answer import OCR
from priorkit.evaluation.tasks.yes_no import YES_NO
from priorkit.scoring.answers.boxes import Box
from priorkit.scoring.answers.refusals import abstains
from priorkit.scoring.answers.short_answer import score_open
from priorkit.scoring.answers.yes_no import read_yes_no, read_yes_no_strict


def metrics(scored: TaskScores) -> dict[str, float]:
    return {name: float(value) for name, value in scored.metrics(scored.counts.sum(0)).items()}


@pytest.mark.parametrize(
    ("answer", "strict", "official"),
    [
        ("Yes.", "yes", "yes"),
        ("no", "no", "no"),
        ("NO", "no", "yes"),
        ("No, there isn't.", "no", "no"),
        ("There isn't a dog.", "no", "yes"),
        ("There is none", "no", "yes"),
        ("I would say yes", "yes", "yes"),
        ("", None, "yes"),
        ("It is a cat", None, "yes"),
        ("yes and not only that", "yes", "no"),
        ("Не знаю", None, "yes"),
        ("Answer: no\nBecause", "no", "yes"),
    ],
)
def test_yes_or_no_strict_and_official(answer: str, strict: str | None, official: str) -> None:
    assert read_yes_no_strict(answer) == strict
    assert read_yes_no(answer) == official


def test_what_is_neither_is_wrong_and_no_yes() -> None:
    items = [Item(id=n, answer=truth) for n, truth in enumerate(["yes", "no", "yes", "no"])]
    answers = [ModelAnswer("yes"), ModelAnswer("no"), ModelAnswer("perhaps"), ModelAnswer("")]
    strict = YES_NO.score(items, answers, ScoringOptions(strict=True))
    assert strict.unparsed == [False, False, True, True]
    assert metrics(strict) == {
        "accuracy": 0.5, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "yes_ratio": 0.25,
    }  # fmt: skip
    official = YES_NO.score(items, answers, ScoringOptions())
    assert metrics(official)["accuracy"] == 0.75
    assert official.unparsed == [False, False, False, True]


def test_pairs_are_scored_as_in_mme() -> None:
    """Two categories; one pair right, one half right: 100 (acc + acc+) each."""
    assert {"mme_perception", "mme_cognition"} <= set(YES_NO.metrics)
    items = [
        Item(id=n, answer="yes" if n % 2 else "no", groups={"pair": f"p{n // 2}", "category": category})
        for n, category in enumerate(["count", "count", "count", "count", "code_reasoning", "code_reasoning"])
    ]
    said = ["no", "yes", "no", "no", "no", "yes"]
    found = metrics(YES_NO.score(items, [ModelAnswer(text) for text in said], ScoringOptions()))
    assert found["mme_perception"] == pytest.approx(100 * (3 / 4 + 1 / 2))
    assert found["mme_cognition"] == pytest.approx(200)


def test_ranking_is_by_mean_log_probability_and_ties_count_half() -> None:
    item = Item(id=0, choices=("a", "b", "c", "d"), answer=1)
    answer = ModelAnswer(loglikelihoods=(-2.0, -4.0, -1.0, -2.0), tokens=(1, 2, 1, 1))
    scored = RANKING.score([item], [answer], ScoringOptions())
    assert scored.extra["rank"] == [3.0]  # one is better; two are equal and count half each
    assert metrics(scored)["mrr"] == pytest.approx(1 / 3)


def test_mixed_items_by_option_number_and_words() -> None:
    rows: list[tuple[dict[str, Any], str, float]] = [
        ({"choices": ["red", "blue"], "answer": "B"}, "The answer is B.", 1.0),
        ({"choices": ["red", "blue"], "answer": "red"}, "blue", 0.0),
        ({"choices": ["1", "2"], "answer": "2"}, "(B)", 1.0),
        ({"answer": "1.2"}, "so it is 3/2, that is 1.24", 1.0),
        ({"answer": "1.2"}, "about 1.3", 0.0),
        ({"answer": "Paris"}, "It is paris, France.", 1.0),
        ({"answer": "art"}, "a party", 0.0),
        ({"answer": "7"}, "seven", 0.0),
    ]
    items = [Item(id=n, **MIXED.read_truth(row)) for n, (row, _, _) in enumerate(rows)]
    scored = MIXED.score(items, [ModelAnswer(text) for _, text, _ in rows], ScoringOptions())
    assert scored.scores == [expected for _, _, expected in rows]
    assert scored.unparsed == [False] * 7 + [True]
    assert score_open("1,200", "1200").score == 1.0


def test_ocr_accepts_the_text_anywhere_and_formulas_without_blanks() -> None:
    items = [
        Item(id=0, answers=("CENTRE",)),
        Item(id=1, answers=("x ^ 2",), groups={"dataset": "HME100k"}),
        Item(id=2, answers=("X ^ 2",), groups={"dataset": "HME100k"}),
    ]
    scored = OCR.score(
        items,
        [ModelAnswer("the sign says Centre."), ModelAnswer("x^2 + 1"), ModelAnswer("X^2")],
        ScoringOptions(),
    )
    assert scored.scores == [1.0, 1.0, 0.0]


def test_the_iou_curve_has_accuracy_at_every_tenth() -> None:
    items = [Item(id=n, box=Box(0, 0, 1, 1)) for n in range(3)]
    answers = [ModelAnswer("[0, 0, 0.5, 0.5]"), ModelAnswer("[0, 0, 1, 0.9]"), ModelAnswer("none")]
    found = metrics(GROUNDING.score(items, answers, ScoringOptions()))
    assert set(found) == set(GROUNDING.metrics)
    assert list(found)[:2] == ["accuracy_at_0.5", "mean_iou"]
    assert found["mean_iou"] == pytest.approx((0.25 + 0.9) / 3)
    curve = [found[f"accuracy_at_{tenth / 10}"] for tenth in range(1, 10)]
    assert curve == pytest.approx([2 / 3] * 2 + [1 / 3] * 7)


@pytest.mark.parametrize(
    ("space", "answer"),
    [("unit", "[0.25, 0.5, 0.75, 1]"), ("1000", "[250, 500, 750, 1000]"), ("pixels", "[160, 240, 480, 480]")],
)
def test_boxes_are_read_in_the_space_that_was_declared(space: BoxSpace, answer: str) -> None:
    truth = Box(0.25, 0.5, 0.75, 1.0)
    item = Item(id=0, box=truth, image_size=(640, 480))
    scored = GROUNDING.score([item], [ModelAnswer(answer)], ScoringOptions(box_space=space))
    assert scored.parsed == [list(truth)]
    assert metrics(scored)["mean_iou"] == 1.0
    outside = GROUNDING.score([item], [ModelAnswer("[0, 0, 1, 2000]")], ScoringOptions(box_space=space))
    assert outside.unparsed == [True]


def test_pixels_need_the_size_of_the_image() -> None:
    with pytest.raises(InputError, match="the size of the image of item 7 is not known"):
        GROUNDING.score(
            [Item(id=7, box=Box(0, 0, 1, 1))],
            [ModelAnswer("[1, 1, 2, 2]")],
            ScoringOptions(box_space="pixels"),
        )


def test_rotations_bring_every_option_to_every_letter() -> None:
    item = Item(id=0, choices=("a", "b", "c"), answer=2)
    assert [(turned.choices, turned.answer) for turned in (rotated(item, by) for by in range(3))] == [
        (("a", "b", "c"), 2),
        (("b", "c", "a"), 1),
        (("c", "a", "b"), 0),
    ]
    always_c = ModelAnswer("C", turns=(ModelAnswer("C"), ModelAnswer("C")))
    scored = CHOICE.score([item], [always_c], ScoringOptions())
    assert metrics(scored) == {"accuracy": 1.0, "circular_accuracy": 0.0}
    right = ModelAnswer("C", turns=(ModelAnswer("B"), ModelAnswer("A")))
    assert CHOICE.score([item], [right], ScoringOptions()).scores == [1.0]
    assert CHOICE.score([item], [right], ScoringOptions()).extra["rotations"] == [[2, 2]]


@pytest.mark.parametrize(
    ("answer", "declines"),
    [
        ("I cannot see the image.", True),
        ("I’m sorry, but I can’t see any picture. Please describe it.", True),
        ("Please provide an image.", True),
        ("A red star.", False),
        ("", False),
        ("The answer is B. It is blue. I cannot tell which shade.", False),
        ("It is the one you cannot seed", False),
    ],
)
def test_abstention_is_recognised_at_the_beginning(answer: str, declines: bool) -> None:
    assert abstains(answer) is declines


def test_blind_answers_abstain_or_are_confident() -> None:
    item = Item(id=0, choices=("red", "blue"), answer=0, withheld=True)
    items = [
        item,
        replace(item, id=1),
        replace(item, id=2),
        replace(item, id=3, groups={"needs_image": "false"}),
    ]
    answers = [ModelAnswer("I cannot see the image."), ModelAnswer("A"), ModelAnswer("hm"), ModelAnswer("A")]
    found = metrics(with_abstention(items, answers, CHOICE.score(items, answers, ScoringOptions())))
    assert found["abstention_rate"] == pytest.approx(1 / 3)
    assert found["confident_rate"] == pytest.approx(1 / 3)
    compared = [ModelAnswer("red", taken=0, loglikelihoods=(-0.1, -5.0), options=("red", "blue"))] * 4
    found = metrics(with_abstention(items, compared, CHOICE.score(items, compared, ScoringOptions())))
    assert (found["abstention_rate"], found["confident_rate"]) == (0.0, 1.0)


def test_shuffled_images_are_never_of_the_same_question() -> None:
    refs = [ImageRef(str(n), content=bytes([n])) for n in range(5)]
    items = [Item(id=n, image=refs[n % 5]) for n in range(11)] + [Item(id=99)]
    shuffled = shuffle_images(items, 3, "b")
    assert shuffled[-1] == items[-1]
    assert all(a.image != b.image for a, b in zip(items[:-1], shuffled[:-1], strict=True))
    assert sorted(item.image.name for item in shuffled[:5] if item.image) == list("01234")
    assert len({(a.image, b.image) for a, b in zip(items[:-1], shuffled[:-1], strict=True)}) == 5
    assert shuffle_images(items, 3, "b") == shuffled
    with pytest.raises(InputError, match="1 images cannot be shuffled"):
        shuffle_images(items[:1], 3, "b")


def log(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_sample_logs_of_the_harnesses(tmp_path: Path) -> None:
    compared = {
        "doc_id": 4, "doc": {"question": "Why?", "answer": 1}, "target": "1", "filter": "none",
        "arguments": {f"gen_args_{n}": {"arg_0": "Why?", "arg_1": f" {text}"} for n, text in enumerate(["red", "blue"])},
        "resps": [[["-3.5", "False"]], [["-1.25", "True"]]], "filtered_resps": [["-3.5", "False"], ["-1.25", "True"]],
    }  # fmt: skip
    (item,), (answer,) = read_answers(
        log(tmp_path / "a.jsonl", [compared]), TASKS["choice"], Rejects(0.0), ()
    )
    assert (item.id, item.choices, item.answer) == (4, ("red", "blue"), 1)
    assert (answer.taken, answer.loglikelihoods) == (1, (-3.5, -1.25))
    scored = CHOICE.score([item], [answer], ScoringOptions())
    assert metrics(scored) == {"accuracy": 1.0, "acc": 1.0, "acc_norm": 1.0}
    assert set(metrics(scored)) < set(CHOICE.metrics)
    written = {
        "doc_id": 0, "doc": {"question_id": "q7", "answers": ["red", "blue"]}, "target": "red", "resps": [["Red."]],
        "filtered_resps": ["Red."],
    }  # fmt: skip
    (item,), (answer,) = read_answers(log(tmp_path / "b.jsonl", [written]), TASKS["vqa"], Rejects(0.0), ())
    assert (item.id, item.answers, answer.prediction) == ("q7", ("red", "blue"), "Red.")
    lettered = {"doc_id": 1, "doc": {"A": "x", "B": "y", "C": "nan"}, "target": "B", "filtered_resps": ["B"]}
    (item,), _ = read_answers(log(tmp_path / "c.jsonl", [lettered]), TASKS["choice"], Rejects(0.0), ())
    assert (item.choices, item.answer) == (("x", "y"), 1)
    twice = log(tmp_path / "d.jsonl", [written, written])
    with pytest.raises(InputError, match="a log of several filters"):
        read_answers(twice, TASKS["vqa"], Rejects(0.0), ())
    bare = log(tmp_path / "e.jsonl", [{"doc_id": 1, "target": "B", "filtered_resps": ["B"]}])
    with pytest.raises(InputError, match="no choices in the document"):
        read_answers(bare, TASKS["choice"], Rejects(0.0), ())


def evaluation(folder: Path, scores: Sequence[float | None], **more: Any) -> Path:
    folder.mkdir()
    (folder / "results.json").write_text('{"model": {"digest": "0"}, "benchmarks": {}}')
    log(
        folder / "samples.jsonl",
        [
            {"id": n, "benchmark": "b", "score": score, "answer": "x", **more}
            for n, score in enumerate(scores)
        ],
    )
    return folder


def test_comparison_pairs_items(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first = generator.integers(0, 2, 200).astype(float)
    second = np.where(generator.random(200) < 0.2, 0.0, first)
    (benchmark,) = compare(
        evaluation(tmp_path / "a", list(first)), evaluation(tmp_path / "b", list(second[:150]))
    ).benchmarks
    assert (benchmark.items, benchmark.unpaired, benchmark.test) == (150, 50, "McNemar")
    assert benchmark.difference.value == pytest.approx(first[:150].mean() - second[:150].mean())
    assert len(benchmark.lost) == 0
    assert len(benchmark.gained) == int((first[:150] - second[:150]).sum())
    assert benchmark.difference.low > 0
    assert benchmark.p < 0.01
    with pytest.raises(InputError, match="has another truth"):
        compare(tmp_path / "a", evaluation(tmp_path / "c", [1.0], answer="y"))


def test_comparison_leaves_out_what_has_no_score_and_refuses_other_options(tmp_path: Path) -> None:
    first = evaluation(tmp_path / "a", [1.0, None, 0.0, 1.0], choices=["x", "y "])
    second = evaluation(tmp_path / "b", [1.0, 1.0, None, 0.0], choices=["x", "y"])
    (benchmark,) = compare(first, second).benchmarks
    assert (benchmark.items, benchmark.unpaired, benchmark.difference.value) == (2, 4, 0.5)
    with pytest.raises(InputError, match="has another truth"):
        compare(first, evaluation(tmp_path / "c", [1.0] * 4, choices=["x", "z"]))
    with pytest.raises(InputError, match="no item of 'b' has a score in both"):
        compare(first, evaluation(tmp_path / "d", [None], choices=["x", "y"]))


def test_comparison_pairs_by_place_where_ids_are_places(tmp_path: Path) -> None:
    """As in logs of lmms-eval 0.7, whose samples name no document."""
    rows = [
        {"id": f"q{n}", "benchmark": "b", "score": 1.0, "answer": "x", "question": f"Which {n}?"}
        for n in range(4)
    ]
    asked = [
        {"id": n, "benchmark": "b", "score": float(n != 2), "answer": "x", "prompt": f"Which  {n}?\nBriefly."}
        for n in range(4)
    ]
    for folder, samples in (("ours", rows), ("theirs", asked), ("moved", asked[::-1])):
        evaluation(tmp_path / folder, [])
        log(tmp_path / folder / "samples.jsonl", [{**row, "id": row["id"]} for row in samples])
    (benchmark,) = compare(tmp_path / "ours", tmp_path / "theirs").benchmarks
    assert (benchmark.items, benchmark.gained) == (4, ("q2",))
    (benchmark,) = compare(tmp_path / "theirs", tmp_path / "ours").benchmarks
    assert (benchmark.items, benchmark.lost) == (4, ("q2",))
    (benchmark,) = compare(tmp_path / "ours", tmp_path / "moved").benchmarks  # ids, not lines, are places
    assert benchmark.gained == ("q2",)
    log(tmp_path / "moved" / "samples.jsonl", [{**row, "prompt": "Which else?"} for row in asked])
    with pytest.raises(InputError, match="at the place of 'q0' asks another question"):
        compare(tmp_path / "ours", tmp_path / "moved")


def test_the_accuracy_under_a_second_parser_is_reported_where_it_differs() -> None:
    items = [Item(n, choices=("a bus", "a tree"), answer=1) for n in range(2)]
    differing = [ModelAnswer("B"), ModelAnswer("Because it is a bus")]
    options = ScoringOptions("first-letter", "careful")
    scored = CHOICE.score(items, differing, options)
    values = scored.metrics(scored.counts.sum(0))
    assert (values["accuracy"], values["accuracy_careful"]) == (1.0, 0.5)
    same = CHOICE.score(items, [ModelAnswer("B"), ModelAnswer("A")], options)
    assert set(same.metrics(same.counts.sum(0))) == {"accuracy"}
