"""Compiled decoders: one graph without breaks, also with documents, and by layer where parameters are sharded."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from priorkit.models.kernels.attention import choose_attention
from priorkit.models.kernels.documents import document_boundaries, document_options
from priorkit.training.engine.compilation import compile_decoder
from tests.support.chat_models import make_llm, make_tokenizer

NUMBERS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 3, 3]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = make_llm(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    choose_attention(model, "cpu")
    return model


def inputs(model: Any, documents: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"input_ids": torch.arange(16).view(2, 8), "use_cache": False}
    if documents:
        implementation = model.config._attn_implementation
        options |= document_options(NUMBERS, document_boundaries(NUMBERS), implementation, torch.float32)
    return options


@pytest.mark.parametrize("documents", [False, True])
def test_a_decoder_is_one_graph(model: Any, documents: bool) -> None:
    torch._dynamo.reset()
    explained = torch._dynamo.explain(model.get_decoder())(**inputs(model, documents))
    assert explained.graph_break_count == 0, explained.break_reasons
    assert explained.graph_count == 1


def test_layers_are_compiled_one_by_one_without_breaks_and_keep_their_names(model: Any) -> None:
    torch._dynamo.reset()
    decoder = model.get_decoder()
    names = [name for name, _ in model.named_parameters()]
    expected = decoder(**inputs(model, True)).last_hidden_state
    compile_decoder(decoder, by_block=True, backend="eager")
    try:
        torch.testing.assert_close(decoder(**inputs(model, True)).last_hidden_state, expected)
        assert [name for name, _ in model.named_parameters()] == names
        assert all("forward" in vars(layer) for layer in decoder.layers)
    finally:
        for layer in decoder.layers:
            del layer.forward
