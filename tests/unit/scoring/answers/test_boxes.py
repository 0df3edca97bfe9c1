"""Reading boxes and intersection over union."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.scoring.answers.boxes import Box, accuracy_at, iou, read_box
from tests.support.golden import cases, load

corner = st.floats(0, 1)
boxes = (
    st.tuples(corner, corner, corner, corner)
    .filter(lambda c: abs(c[0] - c[2]) > 1e-3 and abs(c[1] - c[3]) > 1e-3)
    .map(lambda c: Box(min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])))
)


@pytest.mark.parametrize("case", cases("refcoco"), ids=lambda case: case["why"])
def test_reading_and_iou(case):
    box = read_box(case["input"]["answer"])
    assert (list(box) if box else None) == case["expected"]["box"]
    value = iou(box, Box(*case["input"]["gt"]))
    assert value == pytest.approx(case["expected"]["iou"], abs=1e-9)
    assert (value >= 0.5) == bool(case["expected"]["hit"])


def test_aggregate():
    golden = load("refcoco")
    ious = [iou(read_box(case["input"]["answer"]), Box(*case["input"]["gt"])) for case in golden["cases"]]
    assert accuracy_at(ious, 0.5) == pytest.approx(golden["aggregate"]["acc_at_0.5"], abs=1e-12)
    assert sum(ious) / len(ious) == pytest.approx(golden["aggregate"]["mean_iou"], abs=1e-9)


@given(boxes, boxes)
def test_iou_is_symmetric_and_bounded(one, other):
    assert iou(one, other) == pytest.approx(iou(other, one), abs=1e-12)
    assert 0 <= iou(one, other) <= 1 + 1e-12
    assert iou(one, one) == pytest.approx(1)


@given(boxes)
def test_a_printed_box_is_read_back(box):
    assert read_box(f"it is at [{', '.join(map(repr, box))}].") == box


def test_an_overflowing_number_is_out_of_range():
    assert read_box("[0, 0, 1, 1e999]") is None
