"""States along the way of an image against transformers' own forward pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from priorkit.data.images.decoding import ImageRef, decode
from priorkit.inference.diagnosis.native import NativeAsker
from priorkit.inference.diagnosis.states import (
    chosen_layers,
    final_norm,
    image_inputs,
    image_states,
    name_embeddings,
)
from priorkit.inference.model_adapter import ModelAdapter


@pytest.mark.parametrize("batch_size", [1, 4])
def test_states_are_those_of_transformers(
    llava: ModelAdapter, images: list[ImageRef], batch_size: int, tmp_path: Path
) -> None:
    multimodal = llava.multimodal
    assert multimodal is not None
    asker = NativeAsker(llava, tmp_path / "answers", 4)
    prompt, answers = asker.chat("What is shown?", ("a red circle", "blue"), image=True)
    tokens = [(answers[0][0], answers[1][0])] * len(images)
    states = image_states(
        llava, prompt, image_inputs(llava, images, "What is shown?"), tokens, layers=8,
        batch_size=batch_size, scratch=tmp_path,
    )  # fmt: skip
    assert states.numbers == [1, 2]
    model = multimodal.model
    ids = torch.tensor([prompt])
    at_image = ids[0] == model.config.image_token_id
    for row, image in enumerate(images):
        pixels = multimodal.processor.image_processor(decode(image), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            output = model(input_ids=ids, pixel_values=pixels, output_hidden_states=True)
            read = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
            projected = model.model.multi_modal_projector(read)
        torch.testing.assert_close(states.encoder[row], read[0].mean(0), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(states.projected[row], projected[0].mean(0), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(states.layer(0)[row], output.hidden_states[1][0, -1], atol=1e-3, rtol=1e-3)
        logits = output.logits[0, -1, [answers[0][0], answers[1][0]]].double().numpy()
        np.testing.assert_allclose(
            [states.visual[row, -1], states.prior[row, -1]], logits, atol=1e-3, rtol=1e-3
        )
        lens = model.lm_head(model.model.language_model.norm(output.hidden_states[1][0, -1]))
        assert states.visual[row, 0] == pytest.approx(float(lens[answers[0][0]].detach()), abs=1e-3, rel=1e-3)
    assert at_image.sum() == multimodal.image_tokens


def test_a_decoder_without_a_known_norm_has_no_lens() -> None:
    assert final_norm(torch.nn.Linear(1, 1)) is None
    assert chosen_layers(24, 6) == [4, 8, 12, 16, 20, 24]
    assert chosen_layers(5, 3) == [1, 3, 5]


def test_a_name_is_the_mean_of_its_tokens(llava: ModelAdapter) -> None:
    table = llava.model.get_input_embeddings().weight
    ids = llava.encode(" green triangle")
    found = name_embeddings(llava.model, [llava.encode(" x"), ids])
    torch.testing.assert_close(found[1], table[ids].mean(0).detach())
