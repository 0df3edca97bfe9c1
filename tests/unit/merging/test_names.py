"""Names across PEFT, memory and disk."""

from __future__ import annotations

from priorkit.merging.names import NameMap, in_memory, layer_of

LLAVA = [
    "language_model.lm_head.weight",
    "language_model.model.layers.0.self_attn.q_proj.weight",
    "language_model.model.norm.weight",
    "multi_modal_projector.linear_1.weight",
    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
]


def test_names_in_memory_find_the_stored_ones():
    names = NameMap(LLAVA)
    assert names.find("model.language_model.layers.0.self_attn.q_proj.weight") == LLAVA[1]
    assert names.find("lm_head.weight") == LLAVA[0]
    assert names.find("model.multi_modal_projector.linear_1.weight") == LLAVA[3]
    assert names.find("model.vision_tower.encoder.layers.0.self_attn.q_proj.weight") == LLAVA[4]
    assert names.find("model.norm.weight") == LLAVA[2]
    assert names.find("model.layers.1.self_attn.q_proj.weight") is None


def test_a_language_models_names_find_its_place_in_a_multimodal_model():
    assert NameMap(LLAVA).find("model.layers.0.self_attn.q_proj.weight") == LLAVA[1]


def test_ambiguous_names_find_nothing():
    towers = [
        "text_model.layers.0.fc.weight",
        "vision_model.model.layers.0.fc.weight",
        "model.layers.0.fc.weight",
    ]
    names = NameMap(towers)
    assert names.find("model.layers.0.fc.weight") == towers[2]
    assert names.find("layers.0.fc.weight") == towers[2]
    assert NameMap(["a.model.x", "a.x"]).find("model.a.x") is None


def test_stored_names_to_memory():
    stored = dict.fromkeys(LLAVA)
    assert in_memory(LLAVA[1], stored) == "model.language_model.layers.0.self_attn.q_proj.weight"
    assert in_memory(LLAVA[0], stored) == "lm_head.weight"
    assert in_memory(LLAVA[3], stored) == "model.multi_modal_projector.linear_1.weight"
    assert in_memory("model.norm.weight", {"model.norm.weight": None}) == "model.norm.weight"


def test_layers():
    assert layer_of("model.layers.12.mlp.up_proj.weight") == 12
    assert layer_of("transformer.h.3.attn.c_attn.weight") == 3
    assert layer_of("visual.transformer.resblocks.7.ln_1.bias") == 7
    assert layer_of("lm_head.weight") is None
