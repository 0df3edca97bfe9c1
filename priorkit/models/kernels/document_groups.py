"""Attention within documents on CPUs: documents of similar lengths are gathered into rows of their own.

Documents packed in one row share blocks of scores of which most are masked. Gathered, each costs the square of its own
length, and nothing is masked but what comes later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SIMILAR = 0.75
"""A document shares rows with longer ones if it has at least this share of the longest one's tokens."""

SHORT = 32
"""Documents of up to this many tokens share rows whatever their lengths: more groups would cost more than padding."""


class DocumentGroups(NamedTuple):
    """Where tokens of rows go in the groups, and where they come from.

    Attributes:
        shapes: documents and tokens per document of each group, in order.
        sources: int64 ``[places]``, the token in the concatenation of all rows for each place of all groups; for padding
            the document's first.
        places: int64 ``[tokens]``, the place of each token.
        padding: int64, the places without a token.
    """

    shapes: list[tuple[int, int]]
    sources: Tensor
    places: Tensor
    padding: Tensor


def group_documents(document_ids_BT: NDArray[np.int64]) -> DocumentGroups:
    """Group the documents of rows by length; a document's tokens are contiguous and in one row."""
    begins = np.ones(document_ids_BT.shape, dtype=np.bool_)
    begins[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=begins.size)
    by_length = np.argsort(-lengths, kind="stable")
    shapes: list[tuple[int, int]] = []
    sources: list[NDArray[np.int64]] = []
    taken: list[NDArray[np.bool_]] = []
    first = 0
    while first < len(by_length):
        longest = int(lengths[by_length[first]])
        shortest = 0 if longest <= SHORT else SIMILAR * longest
        last = first + int(np.searchsorted(-lengths[by_length[first:]], -shortest, side="right"))
        members = by_length[first:last, None]
        offsets = np.arange(longest)
        real = offsets < lengths[members]
        sources.append((starts[members] + offsets * real).ravel())
        taken.append(real.ravel())
        shapes.append((last - first, longest))
        first = last
    source, real = np.concatenate(sources), np.concatenate(taken)
    places = np.empty(begins.size, dtype=np.int64)
    places[source[real]] = np.flatnonzero(real)
    padding = torch.from_numpy(np.flatnonzero(~real))
    return DocumentGroups(shapes, torch.from_numpy(source), torch.from_numpy(places), padding)


def attention_by_document(
    query_BHTD: Tensor,
    key_BHTD: Tensor,
    value_BHTD: Tensor,
    documents: Tensor,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Causal attention within documents, group by group.

    Args:
        query_BHTD: ``[batch, heads, time, head_dim]``, in main memory.
        key_BHTD, value_BHTD: of the same shape.
        documents: document numbers int64 ``[batch, 1, 1, time]``.
        attend: causal attention of whole rows: queries, keys and values ``[documents, heads, time, head_dim]`` to
            outputs of that shape.

    Returns:
        ``[batch, heads, time, head_dim]``.
    """
    batch, heads, time, width = query_BHTD.shape
    groups = group_documents(documents[:, 0, 0].numpy())
    sizes = [count * length for count, length in groups.shapes]

    def gathered(part_BHTD: Tensor) -> tuple[Tensor, ...]:
        rows = part_BHTD.transpose(1, 2).reshape(batch * time, heads * width)
        return _Taken.apply(rows, groups.sources, groups.places, None).split(sizes)  # type: ignore[no-any-return]

    outputs: list[Tensor] = []
    for shape, *parts in zip(groups.shapes, *map(gathered, (query_BHTD, key_BHTD, value_BHTD)), strict=True):
        query, key, value = (part.view(*shape, heads, width).transpose(1, 2) for part in parts)
        outputs.append(attend(query, key, value).transpose(1, 2).reshape(-1, heads * width))
    output = _Taken.apply(torch.cat(outputs), groups.places, groups.sources, groups.padding)
    return output.view(batch, time, heads, width).transpose(1, 2)


class _Taken(torch.autograd.Function):
    """Chosen rows ``[chosen, width]`` of a matrix ``[rows, width]``.

    The gradient takes rows too, by the inverse choice, instead of adding them up as ``index_select``'s does; the gradient of
    padding is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, chosen: Tensor, inverse: Tensor, without_gradient: Tensor | None
    ) -> Tensor:
        ctx.inverse, ctx.without_gradient = inverse, without_gradient
        return rows.index_select(0, chosen)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None, None]:
        gradient = gradients[0].index_select(0, ctx.inverse)
        if ctx.without_gradient is not None:
            gradient.index_fill_(0, ctx.without_gradient, 0)
        return gradient, None, None, None
