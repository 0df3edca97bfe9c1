from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from priorkit.models.kernels.pooled_token import pooled_token_only
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder

TEXTS = ["a photo of a heron", "an egret", "a", "the heron by the water"]


def features(encoder: Encoder, pixels: Tensor) -> dict[str, Tensor]:
    return {
        "image": encoder.image_features(pixels),
        "text": encoder.text_features(encoder.tokenize(TEXTS)),
        "layer": encoder.forward_vision(pixels, hidden_states=True).layer(-2),
    }


def gradients(encoder: Encoder, pixels: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    encoder.model.zero_grad()
    found = features(encoder, pixels)
    weights = torch.Generator().manual_seed(1)
    torch.stack(
        [(v * torch.randn(v.shape, generator=weights)).sum() for v in found.values()]
    ).sum().backward()
    return found, {n: p.grad.clone() for n, p in encoder.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("loss", ["clip", "siglip"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_features_and_gradients_are_those_of_the_full_block(loss: Any, attention: str) -> None:
    encoder = build_encoder("pocket-tiny", TEXTS, [Image.linear_gradient("L").convert("RGB")], 300, 1, loss)
    encoder.model.set_attn_implementation(attention)
    pixels = torch.randint(0, 255, (4, 3, 48, 48), generator=torch.Generator().manual_seed(2)).byte()
    plain, expected = gradients(encoder, pixels)
    with pooled_token_only(encoder.model):
        ours, found = gradients(encoder, pixels)
        last = encoder.forward_vision(pixels, hidden_states=True).last_hidden_state
        if loss == "clip":
            assert float(encoder.model.vision_model.encoder(last).last_hidden_state[:, 1:].abs().max()) == 0
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
    assert set(found) == set(expected)
    largest = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5 * largest, msg=name)
    # Nothing of it remains after the context.
    again, _ = gradients(encoder, pixels)
    assert all(torch.equal(again[name], value) for name, value in plain.items())
    assert "forward" not in vars(encoder.model.vision_model.encoder.layers[-1])
