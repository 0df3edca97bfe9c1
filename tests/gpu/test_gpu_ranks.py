"""Ranks on a GPU are those of the processor, bit for bit."""

from __future__ import annotations

import pytest
import torch

from priorkit.scoring.representations.ranks import true_ranks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_a_gpu_counts_the_same_ranks(precision: str) -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = torch.nn.functional.normalize(torch.randn(30_000, 512, generator=generator), dim=1)
    candidates[15_000:16_000] = candidates[:1000]
    truth = torch.randint(30_000, (3000,), generator=generator)
    noise = torch.randn(3000, 512, generator=generator) / 512**0.5
    queries = torch.nn.functional.normalize(0.15 * candidates[truth] + noise, dim=1)
    expected = true_ranks(queries, candidates, truth)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(true_ranks(queries.cuda(), candidates.cuda(), truth), expected)
    finally:
        torch.set_float32_matmul_precision(before)
