"""Documents gathered by length: where tokens go, and attention within documents with its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from priorkit.models.kernels.document_groups import SHORT, SIMILAR, attention_by_document, group_documents
from priorkit.models.kernels.documents import document_mask


def packed(seed: int, rows: int, length: int, longest: int) -> NDArray[np.int64]:
    """Rows full of documents of random lengths, each row's last one padding."""
    rng = np.random.default_rng(seed)
    numbers = np.full((rows, length), -1, dtype=np.int64)
    for row in numbers:
        place = document = 0
        while place < length - 5:
            size = min(int(rng.integers(1, longest + 1)), length - 5 - place)
            row[place : place + size] = document
            place, document = place + size, document + 1
    return numbers


@pytest.mark.parametrize(("rows", "length", "longest"), [(1, 40, 9), (3, 300, 200), (2, 6, 6), (4, 200, 64)])
def test_every_token_has_one_place_in_a_group_of_similar_documents(
    rows: int, length: int, longest: int
) -> None:
    numbers = packed(0, rows, length, longest)
    groups = group_documents(numbers)
    assert len(groups.sources) == sum(count * size for count, size in groups.shapes)
    torch.testing.assert_close(groups.sources[groups.places], torch.arange(numbers.size))
    places = [*groups.places.tolist(), *groups.padding.tolist()]
    assert sorted(places) == list(range(len(groups.sources)))

    rows_of_groups = groups.sources.split([count * size for count, size in groups.shapes])
    is_padding = torch.zeros(len(groups.sources), dtype=torch.bool).index_fill(0, groups.padding, True)
    of_groups = is_padding.split([len(places) for places in rows_of_groups])
    for (count, size), sources, padding in zip(groups.shapes, rows_of_groups, of_groups, strict=True):
        for places, unused in zip(sources.view(count, size), padding.view(count, size), strict=True):
            tokens = places[~unused]
            assert unused.tolist() == sorted(unused.tolist())  # padding is at the end
            assert tokens.tolist() == list(range(int(tokens[0]), int(tokens[0]) + len(tokens)))
            assert len(set(numbers.ravel()[tokens.numpy()])) == 1
            assert size <= SHORT or len(tokens) >= SIMILAR * size


@pytest.mark.parametrize("seed", range(3))
def test_attention_and_gradients_equal_those_under_a_mask(seed: int) -> None:
    documents = torch.from_numpy(packed(seed, 2, 150, 90))
    generator = torch.Generator().manual_seed(seed)
    shape = 2, 3, 150, 4
    parts = [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(4)]

    def causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)

    def passed(by_document: bool) -> list[Tensor]:
        query, key, value = (part.clone().requires_grad_() for part in parts[:3])
        if by_document:
            output = attention_by_document(query, key, value, documents[:, None, None, :], causal)
        else:
            mask = document_mask(documents, "sdpa", torch.float64)
            output = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output.backward(parts[3])
        assert query.grad is not None
        assert key.grad is not None
        assert value.grad is not None
        return [output, query.grad, key.grad, value.grad]

    for found, expected in zip(passed(True), passed(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
