from __future__ import annotations

import pytest
import torch
from PIL import Image
from transformers.activations import QuickGELUActivation

from priorkit.models.kernels.quick_gelu import QuickGelu, fused_quick_gelu
from priorkit.models.vision.building import build_encoder


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_equal_transformers(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-60, 60, 2001), torch.zeros(1)]).to(dtype)
    one, two = (x.clone().requires_grad_() for _ in range(2))
    weights = torch.randn(len(x), generator=torch.Generator().manual_seed(1)).to(dtype)
    ours, theirs = QuickGelu()(one), QuickGELUActivation()(two)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.grad, two.grad, rtol=tolerance, atol=tolerance)


def test_the_derivative_is_that_of_finite_differences() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(QuickGelu(), (x,))


def test_models_get_their_activation_back() -> None:
    encoder = build_encoder("pocket-tiny", ["a"], [Image.linear_gradient("L").convert("RGB")], 300, 1)
    mlp = encoder.model.vision_model.encoder.layers[0].mlp
    before, names = mlp.activation_fn, set(encoder.model.state_dict())
    with fused_quick_gelu(encoder.model):
        assert isinstance(mlp.activation_fn, QuickGelu)
        assert set(encoder.model.state_dict()) == names
    assert mlp.activation_fn is before
