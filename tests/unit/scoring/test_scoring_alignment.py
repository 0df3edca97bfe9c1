"""Mutual nearest neighbours against platonic-rep; closed forms of linear CKA."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from scoring_golden import GOLDEN, cases

from priorkit.core.errors import InputError
from priorkit.scoring.alignment import (
    clamp_outliers,
    linear_cka,
    mutual_knn,
    mutual_knn_layers,
    nearest_neighbours,
)

FEATURES = load_file(GOLDEN / "mutual_knn" / "features.safetensors")


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("case", cases("mutual_knn"), ids=lambda case: f"{case['input']}")
def test_golden(case, block):
    x, y = (FEATURES[case["input"][name]] for name in "xy")
    if case["input"]["clamp_q95"]:
        x, y = clamp_outliers(x), clamp_outliers(y)
    k, expected = case["input"]["k"], case["expected"]
    if "reduce" in case["input"]:
        layers = mutual_knn_layers(x, y, k, block=block)
        assert layers.best == pytest.approx(expected["score"], abs=1e-9)
        assert list(layers.pair) == expected["best_pair"]
        assert layers.scores.flatten().tolist() == pytest.approx(
            torch.tensor(expected["all_pairs"]).flatten().tolist(), abs=1e-6
        )
    else:
        assert mutual_knn(x, y, k, block=block) == pytest.approx(expected["score"], abs=1e-9)
        for name, rows in expected.get("first_rows_neighbours", {}).items():
            found = nearest_neighbours({"x": x, "y": y}[name], k, block=block)
            assert found[: len(rows)].tolist() == rows


def test_k_is_checked():
    with pytest.raises(InputError, match="between 1 and 119"):
        mutual_knn(FEATURES["a"], FEATURES["b"], 120)
    with pytest.raises(InputError, match="same items"):
        mutual_knn(FEATURES["a"], FEATURES["b"][:5], 2)


def test_cka_closed_forms():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 12, generator=generator), torch.randn(200, 9, generator=generator)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    assert linear_cka(x, x) == pytest.approx(1)
    assert linear_cka(x, x @ rotation * 3 + 5) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    assert linear_cka(x, torch.ones(200, 2)) == 0


def test_cka_equals_the_gram_form():
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(40, 6, generator=generator).double() for _ in range(2))
    centre = torch.eye(40).double() - 1 / 40
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    gram = (k * m).sum() / (k.norm() * m.norm())
    assert linear_cka(x, y) == pytest.approx(float(gram), abs=1e-10)
