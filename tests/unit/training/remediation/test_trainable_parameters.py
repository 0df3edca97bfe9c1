from __future__ import annotations

import copy

import pytest

from priorkit.models.vision.encoder import Encoder
from priorkit.training.remediation.settings import TrainableParameters
from priorkit.training.remediation.trainable_parameters import merge_lora, set_trainable


@pytest.mark.parametrize(
    ("parts", "trained", "frozen"),
    [
        (
            TrainableParameters(),
            {"vision_model.embeddings", "visual_projection"},
            {"text_model", "logit_scale"},
        ),
        (
            TrainableParameters(last_blocks=1),
            {"vision_model.encoder.layers.1", "vision_model.post_layernorm"},
            {"vision_model.encoder.layers.0", "vision_model.embeddings", "text_model"},
        ),
        (
            TrainableParameters(lora_rank=2),
            {"lora_A", "lora_B"},
            {"text_model", "base_layer", "visual_projection"},
        ),
        (TrainableParameters(text=True), {"text_model.encoder", "text_projection"}, {"logit_scale"}),
    ],
)
def test_the_chosen_parameters_are_trained_and_no_others(
    encoder: Encoder, parts: TrainableParameters, trained: set[str], frozen: set[str]
) -> None:
    model = copy.deepcopy(encoder.model)
    set_trainable(model, parts)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for word in trained:
        assert any(on for name, on in flags.items() if word in name), word
    for word in frozen:
        assert not any(on for name, on in flags.items() if word in name), word
    merge_lora(model, parts)
    assert set(model.state_dict()) == set(encoder.model.state_dict())
