"""What is compiled has no graph breaks: decoders, also with documents and by layer, and encoders' blocks.

The number of breaks of each part is in ``breaks.json``; more of them fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from priorkit.models.blocks import transformer_blocks
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.kernels.documents import PACKED, document_boundaries, document_options
from priorkit.models.vision.building import build_encoder
from priorkit.training.engine.compilation import compile_decoder
from tests.support.chat_models import make_llava, make_llm, make_tokenizer
from tests.support.cuda_dry import BREAKS, check_count

NUMBERS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0, 3, 3]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = make_llm(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))
    choose_attention(model, "cpu")
    return model


def breaks(part: Any, *given: Any, **options: Any) -> int:
    """Graph breaks of a part, which otherwise is a single graph."""
    torch._dynamo.reset()
    explained = torch._dynamo.explain(part)(*given, **options)
    assert explained.graph_count == explained.graph_break_count + 1
    return explained.graph_break_count


def inputs(model: Any, documents: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"input_ids": torch.arange(16).view(2, 8), "use_cache": False}
    if documents:
        implementation = model.config._attn_implementation
        options |= document_options(NUMBERS, document_boundaries(NUMBERS), implementation, torch.float32)
    return options


@pytest.mark.parametrize("documents", [False, True])
def test_a_decoder_is_one_graph(model: Any, documents: bool) -> None:
    name = "decoder, documents" if documents else "decoder"
    check_count(f"{name}: llama", breaks(model.get_decoder(), **inputs(model, documents)), BREAKS)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("mistral", {"sliding_window": 4}),
        ("qwen3", {"head_dim": 16}),
        ("gpt2", {}),
        ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 4096}),
    ],
)
def test_other_families(tmp_path: Path, family: str, fields: dict[str, Any]) -> None:
    other = make_llm(make_tokenizer(tmp_path), model_type=family, **fields)
    packs = choose_attention(other, "cpu") == PACKED
    name = "decoder, documents" if packs else "decoder"
    check_count(f"{name}: {family}", breaks(other.get_decoder(), **inputs(other, packs)), BREAKS)


def test_the_decoder_of_a_multimodal_model(tmp_path: Path) -> None:
    llava = make_llava(make_tokenizer(tmp_path))
    choose_attention(llava.model, "cpu")
    options = inputs(llava.model.get_decoder(), True)
    options["inputs_embeds"] = llava.model.get_input_embeddings()(options.pop("input_ids")).detach()
    check_count("decoder, documents: llava", breaks(llava.decoder, **options), BREAKS)


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("tower", ["vision_model", "text_model"])
def test_blocks_of_encoders(family: str, tower: str) -> None:
    texts = [f"a photo of thing {number}" for number in range(20)]
    made = build_encoder("pocket-tiny", texts, [Image.new("RGB", (64, 64))], 300, 0, family)  # type: ignore[arg-type]
    choose_attention(made.model, "cpu")
    block = transformer_blocks(getattr(made.model, tower))[1][0]
    seen: list[Any] = []
    handle = block.register_forward_pre_hook(lambda _, *given: seen.append(given), with_kwargs=True)
    pixels = torch.zeros(2, 3, *made.prepared_size(), dtype=torch.uint8)
    made.encode_images(pixels) if tower == "vision_model" else list(made.encode_texts(texts[:2]))
    handle.remove()
    given, options = seen[0]
    check_count(f"block of {tower}: {family}", breaks(block, *given, **options), BREAKS)


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
