"""A language model with the interface of a multimodal one."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from priorkit.models.multimodal.text_only import TextOnlyModel


def test_parameters_belong_to_the_llm_or_the_placeholder() -> None:
    model = TextOnlyModel(SimpleNamespace())
    assert model.parameter_part("model.layers.0.mlp.weight") == "llm"
    assert model.parameter_part("placeholder") == "placeholder"


def test_placeholders_replace_the_image_token_only() -> None:
    table = torch.nn.Embedding(5, 2)
    calls: list[dict[str, torch.Tensor]] = []
    llm = SimpleNamespace(
        get_input_embeddings=lambda: table, get_decoder=lambda: lambda **arguments: calls.append(arguments)
    )
    ids, mask = torch.tensor([[1, 4, 2]]), torch.ones(1, 3)
    model = TextOnlyModel(llm, image_token_id=4)
    model.hidden(ids, mask, None)
    assert calls[0]["input_ids"] is ids
    model.hidden(ids, mask, None, torch.tensor([[7.0, 8.0]]))
    embedded = calls[1]["inputs_embeds"]
    assert embedded[0, 1].tolist() == [7.0, 8.0]
    assert torch.equal(embedded[0, [0, 2]], table(ids)[0, [0, 2]])
