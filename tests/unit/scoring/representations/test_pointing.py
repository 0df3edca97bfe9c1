from __future__ import annotations

import torch

from priorkit.scoring.representations.pointing import pointing_hits

PATCHES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.8, 0.6]])


def test_the_patch_with_the_largest_cosine_points() -> None:
    right = torch.tensor([True, False, False, False])
    assert pointing_hits(PATCHES, torch.tensor([1.0, 0.0]), right) == (0, True, 0.25)
    assert pointing_hits(PATCHES, torch.tensor([0.0, 1.0]), right) == (2, False, 0.25)


def test_of_equal_patches_the_first_one_points() -> None:
    assert pointing_hits(PATCHES, torch.tensor([0.8, 0.6]), torch.tensor([False, True, False, True])) == (
        1,
        True,
        0.5,
    )


def test_nothing_is_right_where_no_patch_shows_it() -> None:
    assert pointing_hits(PATCHES, torch.tensor([1.0, 0.0]), torch.zeros(4, dtype=torch.bool)) == (
        0,
        False,
        0.0,
    )
