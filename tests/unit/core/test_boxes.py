"""Every format of boxes: what is written is read back without a declaration, and as the published code reads it."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.boxes import BOX_NOTATIONS, BoxFormatName, BoxWriter, Corners
from priorkit.scoring.answers.box_formats import find_box
from priorkit.scoring.answers.boxes import iou, read_box

share = st.one_of(
    st.sampled_from([0.0, 1.0, 0.5, 0.29, 0.0005, 0.9995]),
    st.floats(0, 1),
    st.integers(0, 48).map(lambda n: n / 48),
)
boxes = (
    st.tuples(share, share, share, share)
    .map(lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])))
    .filter(lambda c: c[0] < c[2] and c[1] < c[3])
)
writers = st.one_of(
    st.integers(1, 6).map(lambda decimals: BoxWriter("decimals", decimals)),
    st.just(BoxWriter("thousandths")),
    st.sampled_from([2, 3, 10, 48, 64, 333, 500, 997, 999, 1000]).map(
        lambda n: BoxWriter("location-tokens", bins=n)
    ),
)
prose = st.text(st.characters(codec="ascii", exclude_characters="[](){}<>"), max_size=20)


def bin_of(writer: BoxWriter) -> float:
    """Width of a bin, as a share of a side."""
    if writer.format == "decimals":
        return 10.0**-writer.decimals
    return 0.001 if writer.format == "thousandths" else 1 / writer.bins


def tolerance(writer: BoxWriter) -> float:
    """Half a bin, and half a location token where positions are not where these are read."""
    coarse = writer.format == "location-tokens" and writer.bins < 1000
    return bin_of(writer) / 2 + (0.0005 if coarse else 0) + 1e-9


@given(boxes, writers, prose, prose)
def test_a_box_in_any_text_is_read_back(box: Corners, writer: BoxWriter, before: str, after: str) -> None:
    read = read_box(f"{before}{writer.write(box)}{after}")
    assert read is not None
    for low, high in ((0, 2), (1, 3)):
        # A side that would vanish is a bin long; then one of its ends is farther off.
        vanishes = box[high] - box[low] < bin_of(writer) * (1 + 1e-9)
        allowed = tolerance(writer) + vanishes * bin_of(writer)
        assert abs(read[low] - box[low]) <= allowed
        assert abs(read[high] - box[high]) <= allowed


@given(boxes, writers)
def test_rewriting_changes_nothing(box: Corners, writer: BoxWriter) -> None:
    text = writer.write(box)
    (match,) = writer.matches(text)
    assert match[0] == text
    assert writer.write(writer.corners(match)) == text


@given(st.lists(boxes, min_size=2, max_size=4), writers)
def test_several_boxes_in_a_text(several: list[Corners], writer: BoxWriter) -> None:
    texts = [writer.write(box) for box in several]
    text = " and ".join(texts)
    assert [match[0] for match in writer.matches(text)] == texts
    assert read_box(text) == read_box(texts[0])
    joined = "".join(texts)  # also without anything between them
    assert len(writer.boxes_in([joined])) == len(texts)


@given(boxes, st.permutations(get_args(BoxFormatName)))
def test_formats_do_not_hide_each_other(box: Corners, names: list[BoxFormatName]) -> None:
    text = " or ".join(BoxWriter(name).write(box) for name in names)
    for name in names:
        assert len(BoxWriter(name).boxes_in([text])) == 1
    found = find_box(text)
    assert found is not None
    assert found[1].pattern.search(BoxWriter(names[0]).write(box))
    assert all(not found[1].pattern.search(BoxWriter(name).write(box)) for name in names[1:])


@given(boxes)
def test_formats_agree(box: Corners) -> None:
    reads = [read_box(BoxWriter(name).write(box)) for name in get_args(BoxFormatName)]
    if min(box[2] - box[0], box[3] - box[1]) > 0.05:
        for one, other in combinations(reads, 2):
            assert one is not None
            assert other is not None
            assert iou(one, other) > 0.9


@pytest.mark.parametrize("name", get_args(BoxFormatName))
def test_examples(name: BoxFormatName) -> None:
    assert BoxWriter(name).write((0.1, 0.2, 0.3, 0.4)) == BOX_NOTATIONS[name].example
    assert read_box(BoxWriter(name).request) is None


def test_borders() -> None:
    whole = (0.0, 0.0, 1.0, 1.0)
    assert BoxWriter(decimals=2).write(whole) == "[0.00,0.00,1.00,1.00]"
    assert BoxWriter("thousandths").write(whole) == "(0,0),(1000,1000)"
    assert BoxWriter("location-tokens").write(whole) == "<loc_0><loc_0><loc_999><loc_999>"
    assert BoxWriter("location-tokens", bins=48).write(whole) == "<loc_0><loc_0><loc_999><loc_999>"
    assert read_box("(0,0),(1,1)") == (0, 0, 0.001, 0.001)
    assert read_box("(0,0),(1,1)", 1, 1) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    "writer", [BoxWriter(decimals=1), BoxWriter("thousandths"), BoxWriter("location-tokens")]
)
@pytest.mark.parametrize("at", [0.0, 0.2, 0.20004, 0.5, 0.99999])
def test_a_side_shorter_than_a_bin_keeps_an_area(writer: BoxWriter, at: float) -> None:
    read = read_box(writer.write((at, at, at + 1e-5, at + 1e-5)))
    assert read is not None
    assert read.x2 - read.x1 == pytest.approx(bin_of(writer))
    assert abs(read.x1 - at) <= 1.501 * bin_of(writer)


@pytest.mark.parametrize(
    "box", [(0.5, 0, 0.5, 1), (0.5, 0, 0.4, 1), (-0.1, 0, 1, 1), (0, 0, 1, 1.1), (0, float("nan"), 1, 1)]
)
@pytest.mark.parametrize("name", get_args(BoxFormatName))
def test_what_is_no_box_is_not_written(box: Corners, name: BoxFormatName) -> None:
    with pytest.raises(ValueError, match=r"leaves \[0, 1\]|reversed corners or no area"):
        BoxWriter(name).write(box)


@given(boxes)
def test_location_tokens_are_those_of_transformers(box: Corners) -> None:
    from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

    published = Florence2PostProcessor.__new__(Florence2PostProcessor)
    published.quantize_bins = (1000, 1000)
    (corners,) = BoxWriter("location-tokens").boxes_in([BoxWriter("location-tokens").write(box)])
    tokens = [round(corner * 1000 - 0.5) for corner in corners]
    read = published.dequantize(torch.tensor([tokens]), (10**6, 10**6))[0].tolist()
    assert [value / 10**6 for value in read] == pytest.approx(corners, abs=1e-6)
    wanted = published.quantize(torch.tensor([box], dtype=torch.float64) * 1000, (1000, 1000))[0].tolist()
    if wanted[0] < wanted[2] and wanted[1] < wanted[3]:  # otherwise it writes no area
        assert all(abs(token - want) <= 1 for token, want in zip(tokens, wanted, strict=True))
        assert tokens == wanted or any(abs(value * 1000 - round(value * 1000)) < 1e-6 for value in box)


@pytest.mark.parametrize("bins", [2, 48, 333, 999, 1000])
def test_the_tokens_are_those_that_are_written(bins: int) -> None:
    writer = BoxWriter("location-tokens", bins=bins)
    assert len(writer.tokens) == len(set(writer.tokens)) == bins + (bins < 1000)
    places = [place / 2000 for place in range(2000)]
    written = {
        token for place in places for token in writer.write((place, 0, 1, 1)).replace("><", "> <").split()
    }
    assert written == set(writer.tokens)
    assert BoxWriter("thousandths").tokens == ()
