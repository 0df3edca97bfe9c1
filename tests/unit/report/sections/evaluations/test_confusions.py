"""Single answers in the report: the IoU curve of boxes, confusions, unparsed answers."""

from __future__ import annotations

import json

from priorkit.data.results.artifact_graph import Members, gather
from priorkit.report import page
from priorkit.report.blocks import Plot, Table
from priorkit.report.sections.evaluations.accuracy import accuracy_section
from priorkit.report.sections.evaluations.confusions import UNPARSED, confusion_tables
from priorkit.report.sections.evaluations.grounding import grounding_section


def members_of(given: dict) -> Members:
    return Members(gather(given), {}, seed=1, resamples=100)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def boxes(shift: float) -> dict:
    curve = {f"accuracy_at_{tenth / 10}": interval(1 - tenth / 10 - shift) for tenth in range(1, 10)}
    return {
        "metrics": {"accuracy_at_0.5": curve.pop("accuracy_at_0.5"), "mean_iou": interval(0.5), **curve},
        "items": 8,
    }


def test_the_iou_curve_is_drawn_and_tabulated(make, tmp_path) -> None:
    found = members_of(
        {
            "first": make.evaluation("e1", {}, extra={"boxes": boxes(0.0)}),
            "second": make.evaluation("e2", {}, extra={"boxes": boxes(0.1), "more": boxes(0.0)}),
        }
    )
    section = grounding_section(found)
    assert section is not None
    assert [block.name for block in section.blocks] == [
        "iou-curve",
        "iou-curve",
        "iou-curve-2",
        "iou-curve-2",
    ]
    plot, table = section.blocks[:2]
    assert isinstance(plot, Plot)
    assert isinstance(table, Table)
    (axis,) = plot.figure.axes
    first, second = axis.get_lines()
    assert list(first.get_xdata()) == [tenth / 10 for tenth in range(1, 10)]
    assert [round(float(value), 6) for value in second.get_ydata()] == [
        round(0.9 - n / 10, 6) for n in range(1, 10)
    ]
    assert table.rows[4][0] == "IoU at least 0.5"
    assert table.rows[4][2].value == 0.4
    assert table.rows[-1][0] == "mean IoU"
    page.write([section], "Title", tmp_path)
    assert (tmp_path / "plots" / "iou-curve-2.svg").is_file()


def test_one_threshold_is_no_curve(make) -> None:
    one_threshold = {
        "boxes": {"metrics": {"accuracy_at_0.5": interval(0.5), "mean_iou": interval(0.5)}, "items": 8}
    }
    assert grounding_section(members_of({"first": make.evaluation("e1", {}, extra=one_threshold)})) is None


CLASSES = ["sun", "moon", "star"]


def named(make, name: str, read: list[int | None], choices=lambda number: CLASSES) -> object:
    """An evaluation in which every class is asked for in turn and the options are the same."""
    answer = {
        "metrics": {"accuracy": interval(0.5)},
        "items": len(read),
        "unparsed": read.count(None),
        "groups": {},
    }
    artifact = make.evaluation(name, {}, extra={"classes": answer})
    rows = [
        {
            "id": str(number), "benchmark": "classes", "prompt": "?", "prediction": "p", "parsed": option,
            "score": float(option == number % 3), "choices": choices(number), "answer": number % 3, "groups": {},
        }
        for number, option in enumerate(read)
    ]  # fmt: skip
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (artifact.path / "samples.jsonl").write_text(text, encoding="utf-8")
    return artifact


def test_what_is_taken_for_what_is_counted(make) -> None:
    found = members_of(
        {"first": named(make, "e1", [0, 0, 0, 0, 0, None]), "second": named(make, "e2", [0, 2, 2, 1, 1, 2])}
    )
    (table,) = confusion_tables(found.evaluations(), ["classes"])
    assert list(table.columns) == ["true", "answered", "offered", "first", "second"]
    assert [list(row) for row in table.rows] == [
        ["moon", "sun", 2, 2, 0],
        ["moon", "star", 2, 0, 1],
        ["star", UNPARSED, 2, 1, 0],
        ["star", "sun", 2, 1, 0],
        ["sun", "moon", 2, 0, 1],
    ]
    assert table.note.endswith("Wrong in total: first: 4 of 6; second: 2 of 6.")
    section = accuracy_section(found)
    assert section is not None
    assert "confusions" in [block.name for block in section.blocks]
    by_benchmark = next(block for block in section.blocks if block.name == "accuracy-by-benchmark")
    assert by_benchmark.note == "Unparsed answers: first: 1 of 6 (16.7 %)."


def test_options_of_a_single_question_and_right_answers_have_no_table(make) -> None:
    numbered = named(make, "e1", [1] * 6, lambda number: [f"{number} {name}" for name in CLASSES])
    right = named(make, "e2", [0, 1, 2])
    found = members_of({"own": numbered}).evaluations()
    assert confusion_tables(found, ["classes"]) == []
    assert confusion_tables(members_of({"right": right}).evaluations(), ["classes"]) == []


def test_the_accuracy_under_another_parser_is_shown(make) -> None:
    entry = {"metrics": {"accuracy": interval(0.5), "accuracy_careful": interval(0.7)}, "items": 8}
    section = accuracy_section(members_of({"first": make.evaluation("e1", {}, extra={"mmmu": entry})}))
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert [row[:2] for row in table.rows if row[0] == "mmmu"] == [
        ["mmmu", "accuracy"],
        ["mmmu", "accuracy (careful parser)"],
    ]
