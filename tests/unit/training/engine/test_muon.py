"""Muon against torch's, its orthogonalization against the polynomial of singular values in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorkit.training.engine import optimizer
from priorkit.training.engine.optimizer import ITERATIONS, QUINTIC, Muon, orthogonalized


def with_bf16(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(optimizer, "has_fast_bf16", lambda _: able)


def in_float64(matrix: np.ndarray) -> np.ndarray:
    """The same singular vectors; the iteration's polynomial of the singular values, of norm 1 at first."""
    left, values, right = np.linalg.svd(matrix / np.linalg.norm(matrix), full_matrices=False)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        values = a * values + b * values**3 + c * values**5
    return (left * values) @ right


@pytest.mark.parametrize("shape", [(12, 12), (9, 30), (30, 9), (1, 7)])
@pytest.mark.parametrize("able", [True, False])
def test_singular_values_go_through_the_polynomial(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], able: bool
) -> None:
    with_bf16(monkeypatch, able)
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    found = orthogonalized(matrices)
    assert found.dtype == (torch.bfloat16 if able else torch.float32)
    expected = np.stack([in_float64(matrix) for matrix in matrices.double().numpy()])
    tolerance = 0.05 if able else 2e-5
    np.testing.assert_allclose(found.double().numpy(), expected, atol=tolerance)


def test_a_matrix_of_zeros_stays_zero() -> None:
    assert not orthogonalized(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("most", [1, 2**24])
@pytest.mark.parametrize("able", [True, False])
def test_updates_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, most: int, able: bool) -> None:
    with_bf16(monkeypatch, able)
    monkeypatch.setattr(optimizer, "STACKED_NUMBERS", most)
    torch.manual_seed(0)
    shapes = [(8, 8), (8, 20), (20, 8), (8, 8), (8, 20)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    muon = Muon([{"params": ours, "weight_decay": 0.1}], 0.02)
    peer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for one, two in zip(ours[:-1], theirs[:-1], strict=True):  # the last one has no gradient
            one.grad = torch.randn_like(one)
            two.grad = one.grad.clone()
        muon.step()
        peer.step()
    for one, two in zip(ours, theirs, strict=True):
        # An update has numbers of some 0.02 x 0.2; torch's are in bf16.
        torch.testing.assert_close(one, two, rtol=0, atol=4 * 0.02 * 0.2 * (0.01 if able else 0.05))
    assert torch.equal(ours[-1], theirs[-1])
