"""Passes that a cache holds, and the last layer's MLP at the positions that are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priorkit.inference import micro_batching
from priorkit.inference.logits_slicing import slice_last_mlp

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},
    "gpt_neox": {"use_parallel_residual": True},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
}


def subject(width: int, kind: str = "cpu") -> Any:
    return SimpleNamespace(widest=width, device=torch.device(kind))


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), st.sampled_from([64, 2816, 1 << 20]))
def test_passes_hold_every_row_once_and_no_more_tokens_than_fit(lengths: list[int], width: int) -> None:
    found = list(micro_batching.micro_batches(subject(width), lengths))
    assert [place for part in found for place in part] == list(range(len(lengths)))
    room = micro_batching.CACHED_BYTES * torch.get_num_threads() // (4 * width)
    for part in found:
        tokens = len(part) * max(lengths[place] for place in part)
        assert len(part) == 1 or tokens <= max(micro_batching.LEAST_TOKENS, room)


def test_a_gpu_takes_all_rows_together() -> None:
    assert list(micro_batching.micro_batches(subject(2816, "cuda"), [500] * 40)) == [range(40)]


@pytest.mark.parametrize("family", FAMILIES)
def test_last_positions_keep_their_logits_and_the_cache_its_keys(family: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64,
        "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes, **FAMILIES[family]))
    model.eval()
    ids = torch.randint(2, 50, (3, 9))
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=True)
        with slice_last_mlp(model.get_decoder(), 2):
            found = model(input_ids=ids, use_cache=True)
        again = model(input_ids=ids)
    torch.testing.assert_close(found.logits[:, -2:], expected.logits[:, -2:])
    assert not torch.allclose(found.logits[:, 0], expected.logits[:, 0])
    for layer, other in zip(found.past_key_values.layers, expected.past_key_values.layers, strict=True):
        torch.testing.assert_close(layer.keys, other.keys)
        torch.testing.assert_close(layer.values, other.values)
    torch.testing.assert_close(again.logits, expected.logits)
