"""Mutual nearest neighbors against platonic-rep; linear CKA against closed forms and kernel matrices."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from priorkit.core.errors import InputError
from priorkit.scoring.representations.cka import cka_interval
from priorkit.scoring.representations.neighbors import (
    magnitude_quantile,
    nearest_neighbors,
)
from tests.support.golden import GOLDEN, cases
from tests.support.scoring_references import clamp_outliers, mutual_knn, mutual_knn_layers

FEATURES = load_file(GOLDEN / "mutual_knn" / "features.safetensors")


def linear_cka(x, y, *, unbiased=False):
    return cka_interval(x, y, unbiased=unbiased).value


@pytest.mark.parametrize("block", [7, 0])
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
            found = nearest_neighbors({"x": x, "y": y}[name], k, block=block)
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


def test_unbiased_cka_equals_the_kernel_form():
    generator = torch.Generator().manual_seed(2)
    x, y = (
        torch.randn(30, 40, generator=generator).double() + 3,
        torch.randn(30, 9, generator=generator).double(),
    )
    y[:, :4] += x[:, :4]
    n, ones = 30, torch.ones(30).double()

    def hsic(k, m):
        k, m = k - k.diag().diag(), m - m.diag().diag()
        whole = (k @ m).trace() + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return (whole - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    expected = hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()
    assert linear_cka(x, y, unbiased=True) == pytest.approx(float(expected), abs=1e-10)
    assert linear_cka(x, x, unbiased=True) == pytest.approx(1)
    found = cka_interval(x, y, unbiased=True)
    assert found.value == pytest.approx(float(expected), abs=1e-10)
    assert found.low < found.value < found.high


def test_the_unbiased_cka_of_unrelated_features_is_zero():
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(60, 200, generator=generator) for _ in range(2))
    assert linear_cka(x, y) > 0.5
    assert abs(linear_cka(x, y, unbiased=True)) < 0.1
    with pytest.raises(InputError, match="at least four items"):
        linear_cka(x[:3], y[:3])
    with pytest.raises(InputError, match="same items"):
        linear_cka(x, y[:5])


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.95, 1.0])
def test_the_quantile_over_parts_is_that_of_all_sorted_values(quantile):
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(1001, generator=generator) ** 3
    values[::7] = values[0]
    ordered = values.abs().sort().values
    expected = ordered[min(int(quantile * 1001), 1000)]
    assert magnitude_quantile(list(values.split(100)), quantile) == float(expected)
    with pytest.raises(InputError, match="not finite"):
        magnitude_quantile([torch.tensor([1.0, torch.inf])], 0.5)
