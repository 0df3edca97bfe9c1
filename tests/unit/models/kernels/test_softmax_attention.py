"""Softmax attention against its definition, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from priorkit.models.kernels.softmax_attention import softmax_attention

SCALE = 0.3


def parts(dtype: torch.dtype, queries: int = 5, keys: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = (4, queries, 6), (4, keys, 6), (4, keys, 6)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def plain(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None) -> Tensor:
    scores = query @ key.transpose(1, 2) * SCALE
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(dim=-1) @ value


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_finite_differences(masked: bool) -> None:
    hidden = torch.ones(5, 7, dtype=torch.bool).triu(2) if masked else None
    inputs = parts(torch.float64)
    torch.testing.assert_close(softmax_attention(*inputs, SCALE, hidden), plain(*inputs, hidden))
    assert torch.autograd.gradcheck(lambda *given: softmax_attention(*given, SCALE, hidden), inputs)


def test_bf16_is_within_its_rounding_of_float64_also_under_autocast() -> None:
    inputs = parts(torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    plain(*exact, None).sum().backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = softmax_attention(*inputs, SCALE)
    assert output.dtype == torch.bfloat16
    output.sum().backward()
    torch.testing.assert_close(output.double(), plain(*exact, None), rtol=0.02, atol=0.02)
    for part, expected in zip(inputs, exact, strict=True):
        assert part.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(part.grad.double(), expected.grad, rtol=0.05, atol=0.03)


def test_hidden_keys_get_no_gradient() -> None:
    query, key, value = parts(torch.float32)
    hidden = torch.zeros(5, 7, dtype=torch.bool)
    hidden[:, -1] = True
    softmax_attention(query, key, value, SCALE, hidden).square().sum().backward()
    for part in (key, value):
        assert part.grad is not None
        assert not part.grad[:, -1].any()
        assert part.grad[:, :-1].any()
