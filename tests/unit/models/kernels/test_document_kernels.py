"""Kernels for documents on a GPU, on the CPU: boundaries, arguments, block masks, and the choice of a kernel.

FlashAttention and xformers have no kernels for CPUs, so what stands in for them computes what their documentation says.
"""

from __future__ import annotations

import itertools
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from priorkit.models.kernels import document_kernels as kernels
from priorkit.models.kernels.document_kernels import (
    PLAIN,
    Heads,
    by_flex,
    by_varlen,
    by_xformers,
    choose_kernel,
    flex_mask,
    on_device,
    plain_kernel,
    rows_as_documents,
)
from priorkit.models.kernels.documents import document_boundaries, document_positions, document_runs

CPU = torch.device("cpu")
NUMBERS = torch.tensor([[0] * 5 + [1] * 130 + [2] * 57 + [3] * 8, [4] * 120 + [7] * 70 + [-1] * 10])
LENGTHS = [5, 130, 57, 8, 120, 70, 10]


def test_boundaries_are_padded_to_few_sizes() -> None:
    found = document_boundaries(NUMBERS)
    assert found["starts"].dtype == torch.int32
    assert found["starts"].tolist() == [0, 5, 135, 192, 200, 320, 390, 400, 400]
    assert found["longest"] == 200  # 256, but no document is longer than a row
    one = document_boundaries(torch.zeros(1, 7, dtype=torch.int64))
    assert (one["starts"].tolist(), one["longest"]) == ([0, 7], 7)
    # A document ends with its row, even if the next row begins with the same number.
    assert document_boundaries(torch.zeros(2, 4, dtype=torch.int64))["starts"].tolist() == [0, 4, 8]


def test_runs_count_documents_of_a_row() -> None:
    assert document_runs(torch.tensor([[5, 5, 2, -1], [0, 1, 1, 1]])).tolist() == [[0, 0, 1, 2], [0, 1, 1, 1]]


def reference(
    query: Tensor, key: Tensor, value: Tensor, starts: list[int], window: int | None, scale: float
) -> Tensor:
    """Documents one by one, ``[tokens, heads, head_dim]``."""
    outputs = []
    for start, stop in itertools.pairwise(starts):
        if start == stop:
            continue
        parts = [part[start:stop].transpose(0, 1)[None] for part in (query, key, value)]
        places = torch.arange(stop - start)
        seen = places[:, None] >= places
        if window is not None:
            seen &= places[:, None] - places < window
        own = scaled_dot_product_attention(*parts, attn_mask=seen, scale=scale, enable_gqa=True)
        outputs.append(own[0].transpose(0, 1))
    return torch.cat(outputs)


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    starts = cu_seq_q.tolist()
    assert (starts, max_q) == (cu_seq_k.tolist(), max_k)
    assert starts[-1] == len(query)
    assert max_q >= max(stop - start for start, stop in itertools.pairwise(starts))
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert window_size[1] == 0
    left = window_size[0]
    assert scale is not None
    return reference(query, key, value, starts, None if left < 0 else left + 1, scale)


class BlockDiagonalCausalMask:
    """xformers' mask, as its documentation describes it."""

    def __init__(self, lengths: list[int], window: int | None = None) -> None:
        self.lengths, self.window = lengths, window

    @classmethod
    def from_seqlens(cls, lengths: list[int]) -> BlockDiagonalCausalMask:
        return cls(lengths)

    def make_local_attention(self, window: int) -> BlockDiagonalCausalMask:
        return BlockDiagonalCausalMask(self.lengths, window)


def memory_efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_bias: Any, p: float, scale: float
) -> Tensor:
    """``[1, tokens, heads, width]``, or with groups ``[1, tokens, groups, heads, width]``."""
    assert query.shape == key.shape == value.shape
    assert p == 0
    starts = [0]
    for length in attn_bias.lengths:
        starts.append(starts[-1] + length)
    parts = [part[0].flatten(1, -2) for part in (query, key, value)]
    return reference(*parts, starts, attn_bias.window, scale).view(query.shape)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", varlen)
    monkeypatch.setattr(kernels, "_VARLEN_OPTIONS", frozenset({"scale", "window_size", "enable_gqa"}))
    attn_bias = types.SimpleNamespace(BlockDiagonalCausalMask=BlockDiagonalCausalMask)
    ops = types.SimpleNamespace(
        fmha=types.SimpleNamespace(attn_bias=attn_bias), memory_efficient_attention=memory_efficient_attention
    )
    monkeypatch.setitem(sys.modules, "xformers", types.SimpleNamespace(ops=ops))  # type: ignore[arg-type]
    kernels._last_bias.clear()


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("kernel", [by_varlen, by_xformers, by_flex])
@pytest.mark.parametrize("window", [None, 9, 150])
@pytest.mark.parametrize("keys", [1, 2, 4])
def test_kernels_compute_what_plain_attention_does(kernel: Any, window: int | None, keys: int) -> None:
    heads = Heads(4, keys, 16, window, 0.0, 0.3)
    torch.manual_seed(keys)
    query, key, value = (torch.randn(2, count, 200, 16) for count in (4, keys, keys))
    layout = on_device(document_boundaries(NUMBERS), NUMBERS, CPU)
    with torch.no_grad():
        expected = plain_kernel(query, key, value, layout, heads)
        torch.testing.assert_close(kernel(query, key, value, layout, heads), expected, rtol=1e-4, atol=1e-5)
        rows = rows_as_documents(2, 200, CPU)
        expected = plain_kernel(query, key, value, rows, heads)
        torch.testing.assert_close(kernel(query, key, value, rows, heads), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 9, 150])
def test_block_masks_leave_out_only_blocks_without_a_visible_pair(window: int | None) -> None:
    mask = flex_mask(NUMBERS, window)
    dense = mask.to_dense()[:, 0].bool()
    positions = document_positions(NUMBERS)
    places = torch.arange(200)
    seen = (NUMBERS[:, :, None] == NUMBERS[:, None, :]) & (places[:, None] >= places)
    if window is not None:
        seen &= places[:, None] - places < window
    assert positions.shape == NUMBERS.shape
    for row in range(2):
        for i in range(2):
            for j in range(2):
                block = seen[row, i * 128 : (i + 1) * 128, j * 128 : (j + 1) * 128]
                assert bool(dense[row, i, j]) >= bool(block.any())
    assert not dense[:, 0, 1].any()


@pytest.mark.usefixtures("stand_ins")
def test_the_first_kernel_that_agrees_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [Heads(4, 2, 16, None, 0.0, 0.25), Heads(4, 2, 16, 40, 0.0, 0.25)]
    names = list(kernels.KERNELS)
    assert choose_kernel(kinds, torch.float32, CPU) == names[0]
    # Dropout leaves torch's kernel out; xformers' takes it (its stand-in refuses, as anything that does not fit).
    assert choose_kernel([kinds[0]._replace(dropout=0.1)], torch.float32, CPU, names[:1]) == PLAIN
    # A kernel with other results is passed over, and so is one that is not there.
    monkeypatch.setattr(
        kernels, "varlen_attn", lambda *arguments, **options: varlen(*arguments, **options) * 1.1
    )
    assert choose_kernel(kinds, torch.float32, CPU) == names[1]
    monkeypatch.setattr(kernels, "varlen_attn", None)
    assert choose_kernel(kinds, torch.float32, CPU) == names[1]
    monkeypatch.setitem(sys.modules, "xformers", None)
    assert choose_kernel(kinds, torch.float32, CPU, names[:2]) == PLAIN


def test_earlier_versions_of_torch_are_asked_as_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def older(query: Tensor, key: Tensor, value: Tensor, *rest: Any, is_causal: bool) -> Tensor:
        asked.update(is_causal=is_causal)
        return varlen(query, key, value, *rest, scale=16**-0.5, window_size=(-1, 0), enable_gqa=True)

    monkeypatch.setattr(kernels, "varlen_attn", older)
    monkeypatch.setattr(kernels, "_VARLEN_OPTIONS", frozenset({"is_causal"}))
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, count, 200, 16) for count in (4, 2, 2))
    layout = on_device(document_boundaries(NUMBERS), NUMBERS, CPU)
    heads = Heads(4, 2, 16, None, 0.0, 0.7)
    found = by_varlen(query, key, value, layout, heads)
    torch.testing.assert_close(found, plain_kernel(query, key, value, layout, heads), rtol=1e-4, atol=1e-5)
    assert asked == {"is_causal": True}
    with pytest.raises(NotImplementedError, match="sliding windows"):
        by_varlen(query, key, value, layout, heads._replace(window=4))
