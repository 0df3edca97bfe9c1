"""CLIP's MLP against transformers', values and gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPMLP

from priorkit.models.kernels.quick_gelu import fused_quick_gelu
from priorkit.models.vision.building import build_encoder


def mlp() -> Any:
    torch.manual_seed(2)
    return CLIPMLP(CLIPVisionConfig(hidden_size=12, intermediate_size=40))


def passed(module: Any, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Output, and the gradients of input and parameters."""
    x = x.clone().requires_grad_()
    output = module(x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    (output * weights).sum().backward()
    assert x.grad is not None
    return output, x.grad, *(parameter.grad for parameter in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_values_and_gradients_equal_transformers(dtype: torch.dtype) -> None:
    x = torch.cat([torch.randn(30, 12), 40 * torch.randn(5, 12), torch.zeros(1, 12)]).to(dtype)
    expected = passed(mlp().to(dtype), x)
    module = mlp().to(dtype)
    with fused_quick_gelu(module):
        found = passed(module, x)
    for one, two in zip(found, expected, strict=True):
        scale = float(two.abs().max())
        tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * scale)


def test_models_get_their_mlp_back() -> None:
    encoder = build_encoder("pocket-tiny", ["a"], [Image.linear_gradient("L").convert("RGB")], 300, 1)
    layer = encoder.model.vision_model.encoder.layers[0].mlp
    names = set(encoder.model.state_dict())
    with fused_quick_gelu(encoder.model):
        assert "forward" in vars(layer)
        assert set(encoder.model.state_dict()) == names
    assert "forward" not in vars(layer)


def test_layers_that_are_not_plain_stay() -> None:
    class Adapted(torch.nn.Linear):
        pass

    module = mlp()
    module.fc2 = Adapted(40, 12)
    with fused_quick_gelu(SimpleNamespace(modules=lambda: [module])):  # type: ignore[arg-type]
        assert "forward" not in vars(module)
