"""What the report tells of single answers: the IoU curve of boxes."""

from __future__ import annotations

from priorkit.report import page
from priorkit.report.blocks import Plot, Table
from priorkit.report.members import Members, gather
from priorkit.report.sections.grounding import grounding_section


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


def test_the_iou_curve_is_drawn_and_told(make, tmp_path) -> None:
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
    alone = {"boxes": {"metrics": {"accuracy_at_0.5": interval(0.5), "mean_iou": interval(0.5)}, "items": 8}}
    assert grounding_section(members_of({"first": make.evaluation("e1", {}, extra=alone)})) is None
