"""Masks: round trips of run lengths, COCO's own example, areas of polygons in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from priorkit.data.images.masks import decode_counts, decode_segmentation, decompress_counts, draw_polygons


def run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.T.ravel().tolist()
    counts, inside = [0], False
    for pixel in flat:
        if pixel != inside:
            counts.append(0)
            inside = pixel
        counts[-1] += 1
    return counts


def compress(counts: list[int]) -> str:
    """COCO's text of run lengths, from its description: five bits a character, differences from the fourth on."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text += chr((bits | 32 if more else bits) + 48)
            if not more:
                break
    return text


masks = st.integers(1, 12).flatmap(
    lambda height: st.integers(1, 12).flatmap(
        lambda width: st.lists(st.booleans(), min_size=height * width, max_size=height * width).map(
            lambda bits: np.array(bits).reshape(height, width)
        )
    )
)


@given(masks)
def test_run_lengths_round_trip(mask: np.ndarray) -> None:
    height, width = mask.shape
    counts = run_lengths(mask)
    assert (decode_counts(counts, height, width) == mask).all()
    text = {"counts": compress(counts), "size": [height, width]}
    assert (decode_segmentation(text, height, width) == mask).all()


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=30))
def test_compressed_counts_round_trip(counts: list[int]) -> None:
    assert decompress_counts(compress(counts)) == counts


def test_polygon_covers_the_pixels_whose_centre_it_holds() -> None:
    square = draw_polygons([[2, 3, 7, 3, 7, 9, 2, 9]], 12, 10)
    expected = np.zeros((12, 10), dtype=bool)
    expected[3:9, 2:7] = True
    assert (square == expected).all()
    triangle = draw_polygons([[0, 0, 100, 0, 0, 100]], 100, 100)
    assert triangle.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"counts": [3, 3], "size": [2, 2]}, "add up to 6"),
        ({"counts": [4], "size": [4, 1]}, "have size"),
        ({"counts": "\x00", "size": [2, 2]}, "damaged"),
        ({"counts": "P", "size": [2, 2]}, "damaged"),
        ([[1, 2, 3, 4]], "three corners"),
        ("x", "list of polygons"),
    ],
)
def test_broken_segmentations_are_reported_with_the_reason(segmentation: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_segmentation(segmentation, 2, 2)
