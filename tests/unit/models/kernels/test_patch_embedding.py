"""Patches embedded by a product against torch's convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from priorkit.models.kernels.patch_embedding import patches_by_product


@pytest.mark.parametrize(("height", "width", "kernel"), [(12, 12, (4, 4)), (14, 19, (4, 5)), (4, 4, (4, 4))])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("padding", [0, "valid"])
def test_values_and_gradients_equal_the_convolution(
    height: int, width: int, kernel: tuple[int, int], bias: bool, padding: int | str
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 7, kernel, kernel, padding=padding, bias=bias).double()
    pixels = torch.randn(2, 3, height, width, dtype=torch.float64)
    results: list[list[torch.Tensor]] = []
    for fused in (False, True):
        convolution.zero_grad()
        if fused:
            with patches_by_product(convolution):
                assert "forward" in vars(convolution)
                output = convolution(pixels)
        else:
            output = convolution(pixels)
        output.square().sum().backward()
        results.append([output, *(parameter.grad.clone() for parameter in convolution.parameters())])
    assert "forward" not in vars(convolution)
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(3, 4, 4, stride=2),
        nn.Conv2d(3, 4, 4, stride=4, padding=1),
        nn.Conv2d(4, 4, 4, stride=4, groups=2),
        nn.Conv2d(3, 4, 4, stride=4, dilation=2),
        nn.Linear(3, 4),
    ],
)
def test_other_layers_stay(other: nn.Module) -> None:
    with patches_by_product(nn.Sequential(other)):
        assert "forward" not in vars(other)
