"""Sample logs of the harnesses: options in every form, shared ids, damaged files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from priorkit.core.errors import InputError
from priorkit.data.io.rejects import Rejects
from priorkit.evaluation.results.predictions import options_in, read_answers
from priorkit.evaluation.tasks.base import ScoringOptions
from priorkit.evaluation.tasks.registry import TASKS


def log(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [
        {"doc_id": place, "doc": row["doc"], "target": row["target"], "filtered_resps": [row["answer"]]}
        for place, row in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def scores(path: Path, task: str) -> list[float]:
    items, answers = read_answers(path, TASKS[task], Rejects(0.0), ())
    return TASKS[task].score(items, answers, ScoringOptions()).scores


@pytest.mark.parametrize("task", ["choice", "mixed"])
@pytest.mark.parametrize(
    "options",
    [
        {"options": ["dog", "cat", "kite"]},
        {"options": "['dog', 'cat', 'kite']"},
        {"options": '["dog", "cat", "kite"]'},
        {"choices": "('dog', 'cat', 'kite')"},
        {"choices": {"text": ["dog", "cat", "kite"], "label": ["A", "B", "C"]}},
        {"A": "dog", "B": "cat", "C": "kite", "D": "nan"},
    ],
)
def test_options_are_found_in_every_form(tmp_path: Path, task: str, options: dict[str, Any]) -> None:
    answers = ("cat", "The answer is (A), not B.", "B", "A. A dog; option B is wrong.")
    rows = [{"doc": {"id": f"q{n}", **options}, "target": "B", "answer": a} for n, a in enumerate(answers)]
    assert scores(log(tmp_path / "log.jsonl", rows), task) == [1, 0, 1, 0]


@pytest.mark.parametrize("options", ["['dog' 'cat']", "dog, cat", 5, "[dog, cat]"])
@pytest.mark.parametrize("task", ["choice", "mixed"])
def test_options_that_are_no_list_are_refused(tmp_path: Path, task: str, options: Any) -> None:
    rows = [{"doc": {"id": "q", "options": options}, "target": "B", "answer": "B"}]
    with pytest.raises(InputError, match="'options' must be a list of texts"):
        scores(log(tmp_path / "log.jsonl", rows), task)


@pytest.mark.parametrize(
    "options", [{}, {"options": "[]"}, {"options": []}, {"options": None}, {"options": ""}]
)
def test_open_questions_of_a_mixed_benchmark(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [
        {"doc": {"id": "a", **options}, "target": "7", "answer": "It is 7"},
        {"doc": {"id": "b", **options}, "target": "['24/7', '3.43']", "answer": "about 3.43"},
        {"doc": {"id": "c", **options}, "target": ["24/7", "3.43"], "answer": "24/7"},
        {"doc": {"id": "d", **options}, "target": "['24/7', '3.43']", "answer": "3"},
    ]
    assert scores(log(tmp_path / "log.jsonl", rows), "mixed") == [1, 1, 1, 0]


def test_documents_that_share_an_id_are_distinguished(tmp_path: Path) -> None:
    rows = [
        {
            "doc": {"question_id": "3.png", "question": f"Are there {n} cats?"},
            "target": "Yes",
            "answer": "Yes",
        }
        for n in ("two", "five")
    ]
    items, _ = read_answers(log(tmp_path / "log.jsonl", rows), TASKS["yes-no"], Rejects(0.0), ())
    assert [item.id for item in items] == ["3.png Are there two cats?", "3.png Are there five cats?"]
    same = [{**row, "doc": {"question_id": "3.png", "question": "Is it?"}} for row in rows]
    items, _ = read_answers(log(tmp_path / "same.jsonl", same), TASKS["yes-no"], Rejects(0.0), ())
    assert [item.id for item in items] == [0, 1]


def test_the_lines_of_several_filters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    line = json.dumps({"doc_id": 0, "doc": {"id": "a"}, "target": "Yes", "resps": [["Yes"]]})
    path.write_text(f"{line}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match="several filters"):
        read_answers(path, TASKS["yes-no"], Rejects(0.0), ())


@pytest.mark.parametrize("kept", [1, 9, 12, 30])
@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str, kept: int) -> None:
    import pyarrow as pa

    line = json.dumps({"id": 1, "prediction": "yes", "answer": "yes"}).encode() + b"\n"
    data = gzip.compress(line * 50) if suffix.endswith("gz") else pa.compress(line * 50, "zstd", asbytes=True)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[:kept])
    with pytest.raises(InputError) as caught:
        read_answers(path, TASKS["yes-no"], Rejects(0.0), ())
    assert f"cut{suffix}" in str(caught.value.problems[0].where or caught.value)


def test_a_log_with_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", [{"doc": {"id": "a"}, "target": "Yes", "answer": "Yes"}])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\n\n")
    items, _ = read_answers(path, TASKS["yes-no"], Rejects(0.0), ())
    assert [item.id for item in items] == ["a"]


def test_a_log_without_documents(tmp_path: Path) -> None:
    """As lmms-eval 0.7.3 writes it: ``doc`` and ``arguments`` are removed, the text that was asked is ``input``."""
    rows = [
        {
            "doc_id": place, "target": "B", "filtered_resps": answer,
            "input": "Which one? A. Is it this?\nA. a dog\nB. a cat\nAnswer with the option's letter.",
        }
        for place, answer in enumerate(("B. a cat", "A", "cat"))
    ]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    items, answers = read_answers(path, TASKS["choice"], Rejects(0.0), ())
    assert [item.choices for item in items] == [("a dog", "a cat")] * 3
    assert answers[0].prompt == rows[0]["input"]
    assert TASKS["choice"].score(items, answers, ScoringOptions()).scores == [1, 0, 1]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A. one\n(B) two\nC: three", ["one", "two", "three"]),
        ("What is B. here?\nB. two\nC. three", []),
        ("A. only one", []),
        ("As such.\nA. an example\nB. of it\nNow:\nA. one\nB. two", ["one", "two"]),
    ],
)
def test_options_in_the_text_that_was_asked(text: str, options: list[str]) -> None:
    assert options_in(text) == options
