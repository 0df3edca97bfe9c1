"""The compiled decoder of a LION model: adapters are part of the graph, loss and gradients stay the same."""

from __future__ import annotations

import copy

import pytest
import torch

from priorkit.training.engine.compilation import compile_decoder
from tests.support.lion_models import build_lion, randomize_parts
from tests.support.lion_objective import objective, samples


@pytest.mark.parametrize("by_block", [False, True])
def test_a_compiled_decoder_learns_the_same(base, by_block: bool) -> None:
    """torch traces the decoder with its hooks; the traced graphs are run as they are, which needs no C++ compiler."""
    plain = randomize_parts(build_lion(base, dropout=0.0))
    compiled = copy.deepcopy(plain)
    torch._dynamo.reset()
    compile_decoder(compiled.decoder, by_block, backend="eager")
    found: list[list[torch.Tensor | None]] = []
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for lion in (plain, compiled):
        for name, parameter in lion.model.named_parameters():
            parameter.requires_grad_(".lion." in name)
        own = objective(lion, samples())
        total = own.loss(own.collate([own.sample(place, 0) for place in range(len(samples()))])).total
        total.backward()
        found.append(
            [total.detach(), *(value.grad for value in lion.model.parameters() if value.requires_grad)]
        )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > graphs
    assert sum(value is not None and bool(value.any()) for value in found[0]) > 40
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
