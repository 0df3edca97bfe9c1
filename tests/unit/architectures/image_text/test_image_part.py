"""The image encoder of each family, taken out of its model, gives what it gives inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from priorkit.data.images.decoding import ImageRef, decode
from priorkit.models.multimodal.image_part import check_image_part, has_image_part, load_image_part
from tests.support.evaluation_models import picture
from tests.support.image_text_models import FAMILIES, save_image_text_model

TOWERS = ("vision_tower", "vision_model", "visual")
"""Names of the encoder in a model."""


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_those_inside_the_whole_model(family: str, tmp_path: Path) -> None:
    save_image_text_model(family, tmp_path)
    assert has_image_part(tmp_path)
    check_image_part(tmp_path)
    part = load_image_part(tmp_path)
    images = [
        decode(ImageRef(f"{n}.png", content=picture(n, side))) for n, side in ((0, 40), (1, 100), (2, 60))
    ]
    features = part.encode_images(part.batch([part.prepare(image) for image in images]))
    assert features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-5)
    again = part.encode_images([part.prepare(images[1])])
    torch.testing.assert_close(again[0], features[1])
    assert (features[0] - features[1]).abs().max() > 1e-3, "the features do not depend on the image"
    for image, feature in zip(images, features, strict=True):
        torch.testing.assert_close(seen_inside(tmp_path, image), feature, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def seen_inside(folder: Path, image: Image.Image) -> torch.Tensor:
    """The mean of what the encoder puts out while the whole model reads a prompt with the image."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor: Any = AutoProcessor.from_pretrained(folder)
    inner = model.model
    tower = next(getattr(inner, name) for name in TOWERS if hasattr(inner, name))
    seen: list[Any] = []
    tower.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    inputs = processor(text=[f"{processor.image_token}a"], images=[[image]], return_tensors="pt")
    model(**inputs)
    (state,) = seen
    if "aspect_ratio_mask" in inputs:
        state = state[inputs["aspect_ratio_mask"].bool()]
    elif "spatial_shapes" in inputs:
        state = state[inputs["pixel_attention_mask"].bool()]
    return torch.nn.functional.normalize(state.reshape(-1, state.shape[-1]).mean(0), dim=-1)


def test_most_of_the_language_model_is_not_loaded(tmp_path: Path) -> None:
    save_image_text_model("qwen2_5_vl", tmp_path)
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path)
    part = load_image_part(tmp_path)
    assert len(whole.model.language_model.layers) == 2
    assert len(part.model.model.language_model.layers) == 1
