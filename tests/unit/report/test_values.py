"""Numbers, labels, tables and readers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from priorkit.core.errors import InputError
from priorkit.core.interval import Interval
from priorkit.data.results.evaluations import Evaluation, ScoredItem, read_evaluation
from priorkit.data.results.named_artifacts import Labelled
from priorkit.report import numbers
from priorkit.report.blocks import CellImages, FormattedNumber, SignedInterval, Table

LABELS = TypeAdapter(Labelled)


def read(text: str) -> float:
    return float(text.replace(",", "").replace("\N{MINUS SIGN}", "-").replace("+", ""))


@given(st.floats(1e-6, 1e9) | st.floats(-1e9, -1e-6))
def test_numbers_have_few_digits_and_stay_near(value: float) -> None:
    text = numbers.plain(value)
    assert read(text) == pytest.approx(value, rel=6e-3 if abs(value) >= 1e6 or abs(value) < 1e-3 else 6e-4)
    digits = re.sub(r"[^0-9]", "", text.partition("e")[0]).strip("0")
    assert len(digits) <= numbers.SIGNIFICANT or value == round(value)
    assert read(numbers.fixed(value)) == pytest.approx(value, abs=0.0006, rel=6e-3)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.5, 0.4312, 0.6), "0.500 [0.431, 0.600]"),
        (Interval(12.34, 9.994, 15), "12.3 [9.99, 15.0]"),
        (Interval(-0.25, -0.5, 0), "\N{MINUS SIGN}0.250 [\N{MINUS SIGN}0.500, 0.000]"),
        (Interval(3.0, math.nan, math.nan), "3.00"),
        (Interval(math.nan, math.nan, math.nan), "n/a"),
    ],
)
def test_intervals_are_in_brackets(interval: Interval, text: str) -> None:
    assert numbers.with_interval(interval) == text


def test_differences_carry_their_sign() -> None:
    assert (
        numbers.with_interval(Interval(0.1, -0.2, 0.3), signed=True) == "+0.100 [\N{MINUS SIGN}0.200, +0.300]"
    )
    assert numbers.with_interval(Interval(0, 0, 0), signed=True) == "0.000 [0.000, 0.000]"


def test_other_quantities_in_their_units() -> None:
    assert [numbers.p_value(p) for p in (1e-9, 0.00123, 0.0456, math.nan)] == [
        "< 0.0001",
        "0.0012",
        "0.046",
        "n/a",
    ]
    assert [numbers.seconds(t) for t in (3.21, 600, 9000)] == ["3.2 s", "10.0 min", "2.5 h"]
    assert [numbers.size_in_bytes(n) for n in (2**20 * 5, 2**30 * 1.5)] == ["5 MiB", "1.50 GiB"]
    assert numbers.plain(math.inf) == "\N{INFINITY}"
    assert numbers.share(0.1234) == "12.3 %"


def test_inputs_are_named_by_hand_or_by_folder() -> None:
    assert LABELS.validate_python(["runs/ranks", "after=runs/ranks2"]) == {
        "ranks": "runs/ranks",
        "after": "runs/ranks2",
    }
    assert list(LABELS.validate_python(["a/ranks", "b/ranks"])) == ["ranks", "b/ranks"]
    assert list(LABELS.validate_python(["x/after", "after=y"])) == ["x/after", "after"]
    assert LABELS.validate_python({"a": "b"}) == {"a": "b"}
    assert LABELS.validate_python(["runs/x=1"]) == {"x=1": "runs/x=1"}


@pytest.mark.parametrize("wrong", [["a=x", "a=y"], ["=x"], ["a="], []])
def test_names_of_inputs_must_be_unique(wrong: list[str]) -> None:
    with pytest.raises(ValidationError):
        LABELS.validate_python(wrong)


TABLE = Table(
    "t",
    "A table",
    ["name", "value", "change", "p", "pictures", "nothing"],
    [
        ["x, y", Interval(0.5, 0.25, 0.75), SignedInterval(Interval(1 / 3, 0, 1)), FormattedNumber(1e-9, "tiny"), CellImages(("data:",)), None],
        ["z", None, None, FormattedNumber(0.5, "0.5"), CellImages(()), None],
    ],
)  # fmt: skip


def test_csv_keeps_all_digits_and_the_ends_of_intervals() -> None:
    lines = TABLE.csv().splitlines()
    assert lines[0] == "name,value,value low,value high,change,change low,change high,p,nothing"
    assert lines[1] == f'"x, y",0.5,0.25,0.75,{1 / 3!r},0,1,1e-09,'
    assert lines[2] == "z,,,,,,,0.5,"


def test_text_aligns_numbers_to_the_right() -> None:
    assert [TABLE.numeric(column) for column in range(6)] == [False, True, True, True, False, False]
    lines = TABLE.text().splitlines()
    assert lines[0] == "A table"
    assert lines[1].startswith("  name                 value   ")
    assert lines[2].startswith("  x, y  0.500 [0.250, 0.750]")


def test_empty_columns_can_be_left_out() -> None:
    assert list(TABLE.without_empty().columns) == ["name", "value", "change", "p", "pictures"]


def scored(benchmark: str, score: float | None, **row: object) -> ScoredItem:
    return ScoredItem(benchmark, str(row.get("id", 0)), score, {}, row)


def test_chance_follows_from_the_choices() -> None:
    assert scored("b", 1, choices=["a", "b", "c", "d"]).chance == 0.25
    assert scored("b", 1, answer="yes").chance == 0.5
    assert scored("b", 1, prompt="Which?\nA. x\nB. y\nC. z").chance == pytest.approx(1 / 3)
    assert scored("b", 1, prompt="Which?\nB. x\nC. y").chance is None
    assert scored("b", 1, answer="red").chance is None


def test_only_benchmarks_whose_score_is_an_accuracy_are_pooled(make) -> None:
    other = {"metrics": {"accuracy_at_0.5": {"value": 0.5, "low": 0, "high": 1}, "mean_iou": {"value": 0.4, "low": 0, "high": 1}}, "items": 2}  # fmt: skip
    found = make.evaluation("e", {"naming": [True, False, True]}, extra={"boxes": other})
    samples = found.path / "samples.jsonl"
    lines = [
        json.dumps({"benchmark": "boxes", "id": n, "score": s, "groups": {}})
        for n, s in enumerate((0.6, 0.2))
    ]
    samples.write_text(samples.read_text() + "\n".join(lines) + "\n")
    evaluation = read_evaluation(found.path)
    assert evaluation.countable == ("naming",)
    assert evaluation.chance("naming") == 0.5
    assert evaluation.chance("boxes") is None
    assert evaluation.benchmarks["boxes"].primary == "accuracy_at_0.5"


def test_items_left_out_of_the_score_are_left_out_here() -> None:
    evaluation = Evaluation({}, [scored("b", None), scored("b", 1.0)])
    assert [sample.score for sample in evaluation.by_benchmark["b"]] == [1.0]


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("results.json", "{", "results.json"),
        ("results.json", '{"benchmarks": {"b": {"metrics": {"accuracy": 1}}}}', "results.json"),
        ("samples.jsonl", '{"benchmark": "b", "id": 1}\n', "samples.jsonl:1"),
        ("samples.jsonl", "nonsense\n", "samples.jsonl"),
    ],
)
def test_damaged_evaluations_are_named(make, file: str, content: str, where: str) -> None:
    found = make.evaluation("e", {"naming": [True, False]})
    (found.path / file).write_text(content)
    with pytest.raises(InputError, match=where):
        read_evaluation(found.path)


def test_missing_files_of_an_evaluation_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"results\.json"):
        read_evaluation(tmp_path)
