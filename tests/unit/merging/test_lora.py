"""Factors: scales, exact sums, truncation, PEFT's own 'linear'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from priorkit.core.errors import InputError
from priorkit.merging.lora import read_adapter
from priorkit.merging.lora_factors import (
    concatenate,
    factor_gram,
    factor_linear,
    rank_for,
    truncate_dense,
    truncate_factors,
)
from priorkit.merging.tensors import TensorReader

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "lora_merge.json").read_text())


@pytest.fixture
def factors():
    draw = np.random.default_rng(0)
    return [
        (
            draw.standard_normal((40, rank)).astype(np.float32),
            draw.standard_normal((rank, 30)).astype(np.float32),
        )
        for rank in (4, 8, 2)
    ]


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_scales_of_golden_adapters(name):
    adapter = read_adapter(GOLDEN / "lora" / f"adapter_{name}")
    expected = CASES["aggregate"]["scales"][name]
    assert {module: lora.scale for module, lora in adapter.modules.items()} == pytest.approx(expected)


@pytest.mark.parametrize("number", [0, 4, 6])
def test_golden_sums_of_adapters(number):
    case = CASES["cases"][number]
    adapters = [read_adapter(GOLDEN / path) for path in case["input"]["adapters"]]
    expected = load_file(GOLDEN / case["expected"]["file"])
    with TensorReader() as reader:
        for adapter in adapters:
            reader.open([adapter.folder / "adapter_model.safetensors"])
        for name, delta in expected.items():
            module = name.removesuffix(".weight")
            loras = [adapter.modules.get(module) for adapter in adapters]
            parts = [None if lora is None else lora.factors(reader, np.float64) for lora in loras]
            joined = concatenate(parts, case["input"]["weights"])
            found = np.zeros_like(delta) if joined is None else joined[0] @ joined[1]
            assert np.linalg.norm(found - delta) <= 1e-6 * max(np.linalg.norm(delta), 1e-6)


def test_joined_factors_are_the_exact_sum(factors):
    left, right = concatenate(factors, [0.5, -1.0, 2.0])
    assert left.shape == (40, 14)
    expected = sum(c * (a.astype(float) @ b) for c, (a, b) in zip([0.5, -1.0, 2.0], factors, strict=True))
    assert np.linalg.norm(left.astype(float) @ right - expected) < 1e-6 * np.linalg.norm(expected)


def test_nothing_to_join(factors):
    assert concatenate([None, factors[0]], [1.0, 0.0]) is None


def test_inner_products_without_forming_the_products(factors):
    dense = np.stack([(a.astype(float) @ b).reshape(-1) for a, b in factors])
    np.testing.assert_allclose(factor_gram(factors), dense @ dense.T, rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 5, 14, 20])
def test_truncation_is_the_best_of_its_rank_and_reports_its_loss(factors, rank):
    left, right = concatenate(factors, [1.0, 1.0, 1.0])
    dense = left.astype(float) @ right
    u, values, v = np.linalg.svd(dense, full_matrices=False)
    best = (u[:, :rank] * values[:rank]) @ v[:rank]
    for cut in (truncate_factors(left, right, rank, None), truncate_dense(dense, rank, None)):
        assert cut.right.shape[0] == min(rank, 14)
        assert np.linalg.norm(cut.left @ cut.right - best) < 1e-6 * cut.norm
        assert cut.norm == pytest.approx(np.linalg.norm(dense))
        assert cut.error == pytest.approx(np.linalg.norm(dense - best), abs=1e-6 * cut.norm)


def test_tall_and_wide_dense_matrices():
    draw = np.random.default_rng(1)
    for shape in ((50, 20), (20, 50)):
        dense = draw.standard_normal(shape)
        cut = truncate_dense(dense, None, None)
        assert np.linalg.norm(cut.left @ cut.right - dense) < 1e-9


def test_an_energy_share_sets_the_rank():
    energies = np.array([8.0, 1.0, 0.5, 0.5])
    assert rank_for(energies, None, 0.8) == 1
    assert rank_for(energies, None, 0.9) == 2
    assert rank_for(energies, None, 1.0) == 4
    assert rank_for(energies, 1, 0.9) == 1
    assert rank_for(np.zeros(3), None, 0.5) == 1


def test_factors_of_different_ranks_cannot_be_added_up_apart(factors):
    with pytest.raises(InputError, match=r"ranks \[4, 8\]"):
        factor_linear(factors[:2], [1.0, 1.0], [1.0, 1.0])


def test_adding_up_factors_has_cross_terms(factors):
    draw = np.random.default_rng(3)
    one = factors[0]
    two = (draw.standard_normal((40, 4)), draw.standard_normal((4, 30)))
    left, right = factor_linear([one, two], [2.0, 0.5], [0.3, -0.4])
    w, x = 0.6, 0.2
    expected = (w**0.5 * one[0] + x**0.5 * two[0]) @ (w**0.5 * one[1] - x**0.5 * two[1])
    np.testing.assert_allclose(left @ right, expected, rtol=1e-5, atol=1e-5)
    exact = w * one[0] @ one[1] - x * two[0] @ two[1]
    assert np.linalg.norm(left @ right - exact) > 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peft_type": "IA3"}, "type LORA can be merged, this is IA3"),
        ({"lora_bias": True}, "'lora_bias' is set"),
        ({"trainable_token_indices": [1]}, "trainable tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base's weights"),
    ],
)
def test_adapters_of_other_sorts_are_refused(change, words, tmp_path):
    source = GOLDEN / "lora" / "adapter_a"
    config = {**json.loads((source / "adapter_config.json").read_text()), **change}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    with pytest.raises(InputError, match=words):
        read_adapter(tmp_path)


def test_a_pickled_adapter_is_never_opened(tmp_path):
    config = (GOLDEN / "lora" / "adapter_a" / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04anything")
    with pytest.raises(InputError, match="pickle") as caught:
        read_adapter(tmp_path)
    assert f"priorkit convert {tmp_path}" in caught.value.problems[0].hint
