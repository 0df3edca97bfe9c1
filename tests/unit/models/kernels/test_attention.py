"""Packed attention: equal to plain softmax attention under a block-diagonal mask, for every family it serves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from priorkit.models.kernels import attention, plain_attention
from priorkit.models.kernels.attention import PACKED_MODEL_TYPES, choose_attention
from priorkit.models.kernels.documents import PACKED, document_mask, document_positions

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2], [0, 0, 0, 0, 0, 3, 3, 3, 3, -1, -1, -1]])
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "max_position_embeddings": 64,
}


def build(family: str, **fields: Any) -> Any:
    sizes = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, **fields}
    if family in ("gemma", "qwen3"):
        sizes["head_dim"] = 8
    if family in ("gpt2", "phi"):
        del sizes["num_key_value_heads"], sizes["intermediate_size"]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_attention, "BLOCK_ROWS", 5)


def logits(model: Any, documents: torch.Tensor | None, implementation: str) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12) % 50
    model.set_attn_implementation(implementation)
    if documents is None:
        return model(input_ids=ids, use_cache=False).logits
    mask = document_mask(documents, implementation, torch.float32)
    positions = document_positions(documents)
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits


@pytest.mark.parametrize("family", sorted(PACKED_MODEL_TYPES))
def test_equals_plain_attention_in_every_family(family: str) -> None:
    model = build(family)
    assert choose_attention(model, "cpu") == PACKED
    for documents in (None, DOCUMENTS):
        packed, eager, fused = (logits(model, documents, name) for name in (PACKED, "eager", "sdpa"))
        torch.testing.assert_close(packed, eager, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(packed, fused, rtol=1e-5, atol=1e-5)


def test_sliding_window_is_kept() -> None:
    model = build("mistral", sliding_window=4)
    choose_attention(model, "cpu")
    full = logits(build("mistral", sliding_window=None), None, "eager")
    windowed = logits(model, None, PACKED)
    torch.testing.assert_close(windowed, logits(model, None, "eager"), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(windowed, full, atol=1e-3)


def test_gradients_equal_those_of_plain_attention() -> None:
    model = build("llama")
    choose_attention(model, "cpu")
    found: list[list[torch.Tensor]] = []
    for name in (PACKED, "eager"):
        model.zero_grad()
        logits(model, DOCUMENTS, name).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for packed, eager in zip(*found, strict=True):
        torch.testing.assert_close(packed, eager, rtol=1e-4, atol=1e-5)


def test_mixed_precision_computes_in_the_precision_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotary embeddings leave fp32 queries and keys with bf16 values, which kernels refuse or compute slowly."""
    seen: list[set[torch.dtype]] = []
    whole = attention.attention_in_blocks

    def recording(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *others: Any) -> torch.Tensor:
        seen.append({query.dtype, key.dtype, value.dtype})
        return whole(query, key, value, *others)

    monkeypatch.setattr(attention, "attention_in_blocks", recording)
    model = build("llama")
    choose_attention(model, "cpu")
    for documents in (None, DOCUMENTS):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = logits(model, documents, PACKED)
        torch.testing.assert_close(mixed.float(), logits(model, documents, "eager"), rtol=0.05, atol=0.05)
    assert seen == [{torch.bfloat16}] * 4


def test_documents_do_not_attend_to_each_other() -> None:
    """A document's logits are those of the document by itself."""
    model = build("llama")
    choose_attention(model, "cpu")
    together = logits(model, DOCUMENTS, PACKED)[0, 3:7]
    ids = (torch.arange(24).reshape(2, 12) % 50)[:1, 3:7]
    torch.testing.assert_close(together, model(input_ids=ids).logits[0], rtol=1e-5, atol=1e-5)


def test_padding_mask_becomes_document_numbers() -> None:
    model = build("llama")
    choose_attention(model, "cpu")
    ids = torch.arange(12).reshape(1, 12)
    padded = torch.cat([ids, torch.zeros(1, 3, dtype=torch.long)], dim=1)
    mask = (torch.arange(15) < 12).long()[None]
    seen = model(input_ids=padded, attention_mask=mask, use_cache=False).logits[:, :12]
    torch.testing.assert_close(seen, model(input_ids=ids, use_cache=False).logits, rtol=1e-5, atol=1e-5)


def test_families_with_other_scores_keep_their_attention() -> None:
    model = build("gemma2", head_dim=8)
    assert choose_attention(model, "cpu") == "eager"


def test_positions_restart_in_each_document() -> None:
    assert document_positions(DOCUMENTS).tolist() == [
        [0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2],
    ]
