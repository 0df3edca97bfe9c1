from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from priorkit.training.remediation import losses


def features(rows: int, seed: int, width: int = 5) -> Tensor:
    return normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_keep_loss_by_hand() -> None:
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    keep_loss = losses.keep_loss
    assert keep_loss(one, one).tolist() == [0.0]
    assert keep_loss(one, two).tolist() == [2.0]
    assert keep_loss(torch.stack([one, one], dim=1), torch.stack([two, one], dim=1)).tolist() == [1.0]


def test_the_relational_loss_leaves_out_an_image_itself() -> None:
    student, teacher = features(5, 1, 4).requires_grad_(), features(5, 2, 9)
    found = losses.relational_loss(student, teacher, 0.2)
    expected = 0.0
    for row in range(5):
        others = [c for c in range(5) if c != row]
        p = ((teacher[row] @ teacher[others].T) / 0.2).double().softmax(0)
        q = ((student[row] @ student[others].T) / 0.2).double().softmax(0)
        expected += float((p * (p / q).log()).sum())
    assert float(found) == pytest.approx(expected, rel=1e-5)
    assert float(losses.relational_loss(teacher, teacher, 0.2)) == pytest.approx(0.0, abs=1e-6)
    # A rotation keeps all similarities.
    turned = teacher @ torch.linalg.qr(torch.randn(9, 9))[0]
    assert float(losses.relational_loss(turned, teacher, 0.2)) == pytest.approx(0.0, abs=1e-4)
    assert float(losses.relational_loss(student[:2], teacher[:2], 0.2)) == 0.0
    found.backward()
    assert bool(student.grad is not None and student.grad.isfinite().all())
