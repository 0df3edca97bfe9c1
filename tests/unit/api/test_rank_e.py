from __future__ import annotations

import numpy as np
import pytest
import torch

import priorkit as pk


def test_rank_e_of_features_at_hand() -> None:
    names = np.eye(3)
    images = np.array([[1.0, 0.1, 0], [0, 1, 0.1], [1, 0.2, 0.1], [1, 0, 0.5]])
    found = pk.rank_e(images, names, [0, 1, 1, 2])
    assert found.image_rank.tolist() == [1, 1, 2, 2]
    assert found.table["entity"].tolist() == ["0", "1", "2"]
    assert found.table["mean_rank"].tolist() == [1, 1.5, 2]
    interval = found.intervals["mean_rank"]
    assert interval.low <= interval.value <= interval.high
    assert interval.value == 1.5
    assert found.candidates == 3
    assert "image_rank" not in repr(found)


def test_by_name_and_from_tensors() -> None:
    found = pk.rank_e(torch.eye(2), torch.eye(2, dtype=torch.float64), ["b", "a"], names=["a", "b"])
    assert found.table["mean_rank"].tolist() == [2, 2]
    assert found.plot().axes[0].get_xlabel() == "Rank_e among 2 names"


@pytest.mark.parametrize(
    ("entity_of", "names", "message"),
    [
        ([0, 2], None, "entity_of: row 2 of 2 names"),
        (["a", "c"], ["a", "b"], "entity_of: no name 'c'"),
        (["a", "b"], None, "entity_of: no name 'a'"),
        ([0, 1], ["a"], "names: 1 names for 2 rows of name_features"),
    ],
)
def test_what_does_not_fit_is_refused(entity_of: list, names: list[str] | None, message: str) -> None:
    with pytest.raises(pk.InputError, match=message):
        pk.rank_e(np.eye(2), np.eye(2), entity_of, names)


def test_a_single_row_is_refused() -> None:
    with pytest.raises(pk.InputError, match=r"image_features: expected \[rows, width\]"):
        pk.rank_e(np.ones(3), np.eye(3), [0])
