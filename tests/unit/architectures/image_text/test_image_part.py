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


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_projector_reads_gives_what_the_language_model_gets(family: str, tmp_path: Path) -> None:
    save_image_text_model(family, tmp_path)
    part = load_image_part(tmp_path)
    encoded = part.encode(part.prepare(decode(ImageRef("0.png", content=picture(0, 40)))))
    assert encoded.embedded.shape[-1] == part.model.get_input_embeddings().weight.shape[-1]
    if family in ("mllama", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "idefics2", "idefics3", "smolvlm"):
        torch.testing.assert_close(encoded.read, encoded.states)
    if family in ("llava_next", "vipllava"):
        with torch.no_grad():
            projected = part.model.model.multi_modal_projector(encoded.read[None])[0]
        assert len(encoded.read) >= len(projected) > 0
        # The language model gets these, sorted into rows with separators.
        for token in projected[:3]:
            assert (encoded.embedded - token).abs().amax(-1).min() < 1e-5


@torch.no_grad()
def test_of_llava_next_the_layer_before_the_last_is_read(tmp_path: Path) -> None:
    save_image_text_model("llava_next", tmp_path)
    part = load_image_part(tmp_path)
    prepared = part.prepare(decode(ImageRef("0.png", content=picture(0, 40))))
    tower = part.model.model.vision_tower
    states = tower(prepared["pixel_values"].flatten(0, 1), output_hidden_states=True).hidden_states
    assert part.model.config.vision_feature_layer == -2
    torch.testing.assert_close(part.encode(prepared).read, states[-2][:, 1:].flatten(0, 1))
