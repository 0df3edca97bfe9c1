"""Placement of a category in an image: closed forms, a float64 reference, rotation and mirroring."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from priorkit.mle_bench.annotations import Placement, placement_of, placements_of

SHAPES = array_shapes(min_dims=2, max_dims=2, max_side=12)
MASKS = arrays(bool, SHAPES)
NUMBERS = arrays(np.int64, SHAPES, elements=st.integers(0, 3))
NAMES = {1: "cat", 2: "dog", 3: "cat"}


def reference(mask: np.ndarray) -> Placement:
    """Every pixel's center in turn."""
    height, width = mask.shape
    centers = np.array([(x + 0.5, y + 0.5) for y in range(height) for x in range(width) if mask[y, x]])
    offset = centers.mean(axis=0) - np.array([width, height], dtype=np.float64) / 2
    return Placement(
        len(centers) / mask.size, float(np.linalg.norm(offset) / np.linalg.norm([width / 2, height / 2]))
    )


def near(placement: Placement) -> object:
    return pytest.approx((placement.area, placement.center_distance), abs=1e-12)


def values(placement: Placement | None) -> tuple[float, float]:
    assert placement is not None
    return placement.area, placement.center_distance


def test_closed_forms() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    assert placement_of(mask) is None
    mask[:] = True
    assert placement_of(mask) == Placement(1.0, 0.0)
    mask[:] = False
    mask[:, :20] = True
    # The left half's centroid is a quarter of the width, 10 of 25 pixels, from the center.
    assert placement_of(mask) == Placement(0.5, 10 / 25)
    mask[:] = False
    mask[29, 39] = True
    assert values(placement_of(mask)) == pytest.approx((1 / 1200, math.hypot(19.5, 14.5) / 25))
    # A ring around the center has its centroid there.
    mask[:] = True
    mask[10:20, 10:30] = False
    assert values(placement_of(mask)) == pytest.approx((1 - 200 / 1200, 0.0))


@given(MASKS)
def test_a_mask_agrees_with_the_reference_and_rotation_changes_nothing(mask: np.ndarray) -> None:
    found = placement_of(mask)
    if not mask.any():
        assert found is None
        return
    assert values(found) == near(reference(mask))
    assert 0 <= values(found)[1] < 1
    for other in (np.rot90(mask), np.rot90(mask, 2), mask[::-1], mask[:, ::-1], mask.T):
        assert values(placement_of(other)) == near(reference(mask))


@given(NUMBERS)
def test_numbers_agree_with_masks_to_the_last_bit(numbers: np.ndarray) -> None:
    masks = {"cat": (numbers == 1) | (numbers == 3), "dog": numbers == 2}
    expected = {name: placement_of(mask) for name, mask in masks.items() if mask.any()}
    assert placements_of(numbers, NAMES) == expected


def test_a_number_without_a_category_is_refused() -> None:
    with pytest.raises(ValueError, match="the mask holds the number 9, which has no category"):
        placements_of(np.full((2, 2), 9), NAMES)
