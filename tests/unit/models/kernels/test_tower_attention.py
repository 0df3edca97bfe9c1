"""Attention of image and text towers against transformers', values and gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, SiglipVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.models.siglip.modeling_siglip import SiglipAttention

from priorkit.models.kernels.tower_attention import fused_tower_attention
from priorkit.models.vision.building import build_encoder


def attention(family: str, **fields: Any) -> Any:
    torch.manual_seed(2)
    sizes: dict[str, Any] = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 20, **fields}
    config = CLIPVisionConfig(**sizes) if family == "clip" else SiglipVisionConfig(**sizes)
    config._attn_implementation = "eager"
    return CLIPAttention(config) if family == "clip" else SiglipAttention(config)


def passed(module: Any, mask: torch.Tensor | None, mixed: bool) -> list[torch.Tensor]:
    """Output, and the gradients of input and parameters."""
    x = torch.randn(4, 9, 12, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
        output = module(x, attention_mask=mask)[0].float()
    output.square().sum().backward()
    assert x.grad is not None
    return [output, x.grad, *(parameter.grad for parameter in module.parameters())]


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_values_and_gradients_equal_transformers(family: str, causal: bool, mixed: bool) -> None:
    later = torch.ones(9, 9, dtype=torch.bool).triu(1)
    mask = torch.zeros(1, 1, 9, 9).masked_fill(later, torch.finfo(torch.float32).min) if causal else None
    expected = passed(attention(family), mask, mixed)
    module = attention(family)
    with fused_tower_attention(module):
        assert "forward" in vars(module)
        found = passed(module, mask, mixed)
    # The key's bias has gradient 0 but for rounding.
    scale = max(float(tensor.detach().abs().max()) for tensor in expected)
    tolerance = 3e-2 if mixed else 1e-5
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_towers_get_their_attention_back_and_other_kernels_stay(implementation: str) -> None:
    encoder = build_encoder("pocket-tiny", ["a"], [Image.linear_gradient("L").convert("RGB")], 300, 1)
    encoder.model.set_attn_implementation(implementation)
    towers = encoder.model.vision_model, encoder.model.text_model
    names = set(encoder.model.state_dict())
    with fused_tower_attention(encoder.model):
        for tower in towers:
            assert ("forward" in vars(tower.encoder.layers[0].self_attn)) == (implementation == "eager")
        assert set(encoder.model.state_dict()) == names
    assert all("forward" not in vars(tower.encoder.layers[0].self_attn) for tower in towers)


def test_attention_with_dropout_or_adapters_stays() -> None:
    class Adapted(torch.nn.Linear):
        pass

    adapted = attention("clip")
    adapted.k_proj = Adapted(12, 12)
    for module in (adapted, attention("siglip", attention_dropout=0.1)):
        with fused_tower_attention(SimpleNamespace(modules=lambda module=module: [module])):  # type: ignore[arg-type]
            assert "forward" not in vars(module)
