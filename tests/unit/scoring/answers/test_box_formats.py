"""Boxes in the forms in which published models write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import patch_index_to_coordinate

from priorkit.scoring.answers.box_formats import BOX_FORMATS, BoxFormat, find_box
from priorkit.scoring.answers.boxes import read_box

TRUE = (0.1, 0.2, 0.3, 0.4)
corners = st.tuples(*[st.integers(0, 998)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1)
)

WRITERS = {
    "list": "[{}, {}, {}, {}]",
    "Shikra, several": "[{},{},{},{};1,2,3,4]",
    "GLM": "<|begin_of_box|>[[{},{},{},{}]]<|end_of_box|>",
    "CogVLM": "the cat [[{:03d},{:03d},{:03d},{:03d}]]",
    "InternVL": "<ref>the cat</ref><box>[[{}, {}, {}, {}]]</box>",
    "DeepSeek-VL2": "<|ref|>the cat<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>",
    "Qwen-VL": "<ref>the cat</ref><box>({},{}),({},{})</box>",
    "Qwen2-VL": "<|object_ref_start|>cat<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>",
    "Qwen2-VL without special tokens": "cat({},{}),({},{})",
    "Qwen2.5-VL": '```json\n[{{"bbox_2d": [{}, {}, {}, {}], "label": "cat"}}]\n```',
    "MiniCPM-V": "<ref>the cat</ref><box>{} {} {} {}</box>",
    "Seed-VL": "<bbox>{} {} {} {}</bbox>",
}


@pytest.mark.parametrize("writer", WRITERS.values(), ids=list(WRITERS))
@given(box=corners)
def test_a_written_box_is_read_back(writer: str, box: tuple[int, int, int, int]) -> None:
    read = read_box(writer.format(*box), 1000, 1000)
    assert read is not None
    assert tuple(read) == pytest.approx([value / 1000 for value in box])


@given(box=corners)
def test_forms_with_y_first(box: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = box
    read = read_box(f'[{{"box_2d": [{y1}, {x1}, {y2}, {x2}], "label": "cat"}}]')
    assert read is not None
    assert tuple(read) == pytest.approx([value / 1000 for value in box])
    tokens = "".join(f"<loc{value:04d}>" for value in (y1, x1, y2, x2))
    read = read_box(f"{tokens} cat ; {tokens} dog")
    assert read is not None
    assert tuple(read) == pytest.approx([value / 1024 for value in box])


@given(box=corners)
def test_bins_of_florence(box: tuple[int, int, int, int]) -> None:
    read = read_box("cat" + "".join(f"<loc_{value}>" for value in box))
    assert read is not None
    assert tuple(read) == pytest.approx([(value + 0.5) / 1000 for value in box])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (44, 863), (5, 911), (0, 1023), (64, 95), (3, 995)])
def test_patches_as_in_transformers(first: int, last: int) -> None:
    expected = patch_index_to_coordinate(first, last, 32)
    found = find_box(f"<object><patch_index_{first:04d}><patch_index_{last:04d}></object>")
    assert found is not None
    assert found[0] == pytest.approx(expected)


@pytest.mark.parametrize("form", BOX_FORMATS, ids=lambda form: form.models)
def test_the_example_of_each_form(form: BoxFormat) -> None:
    found = find_box(form.example)
    assert found is not None
    assert found[1] is form
    scale = 1000 if form.declared else 1
    assert [value / scale for value in found[0]] == pytest.approx(TRUE, abs=1 / 64)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "the cat at (100, 200)",
        "[100, 200, 300]",
        "[1,2,3,4,5]",
        "<loc0100><loc0200><loc0300>",
        "{<10><20><30>}",
        "<patch_index_0044>",
        "(0.1,0.2),(0.3,0.4)",
    ],
)
def test_no_box(answer: str) -> None:
    assert find_box(answer) is None


def test_the_first_of_several_forms_counts() -> None:
    assert read_box("{<10><20><30><40>} or [0.5,0.5,0.9,0.9]") == pytest.approx(TRUE)
