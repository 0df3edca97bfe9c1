"""Documents that share rows: their numbers, positions and boundaries, and what a decoder is given of them."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

PACKED = "priorkit_packed"
"""The attention implementation that takes document numbers; see :mod:`priorkit.models.kernels.attention`."""


class Boundaries(TypedDict):
    """Where the documents of a batch begin, found while it is in main memory.

    Attributes:
        starts: int32 ``[documents + 1]``, first positions in the concatenation of all rows, then its length, which is
            repeated until the size is a power of two plus one: few sizes, so few compiled variants.
        longest: an upper bound of the documents' lengths, a power of two or the rows' length.
    """

    starts: Tensor
    longest: int


def document_boundaries(document_ids_BT: Tensor) -> Boundaries:
    """The boundaries of the documents of a batch in main memory.

    Args:
        document_ids_BT: int64 ``[batch, time]``; a document's tokens are contiguous and in one row.
    """
    starts = _begins(document_ids_BT).reshape(-1).nonzero()[:, 0]
    total, documents = document_ids_BT.numel(), len(starts)
    size = _power_of_two(documents)
    ends = torch.cat([starts[1:], starts.new_tensor([total])])
    longest = min(document_ids_BT.shape[1], _power_of_two(int((ends - starts).max())))
    filler = starts.new_full((size - documents + 1,), total)
    return {"starts": torch.cat([starts, filler]).int(), "longest": longest}


def _power_of_two(number: int) -> int:
    """The next power of two, at least 1."""
    return 1 << max(0, number - 1).bit_length()


def _begins(document_ids_BT: Tensor) -> Tensor:
    """Whether a token is the first of its document, bool ``[batch, time]``."""
    begins = torch.ones_like(document_ids_BT, dtype=torch.bool)
    begins[:, 1:] = document_ids_BT[:, 1:] != document_ids_BT[:, :-1]
    return begins


def document_runs(document_ids_BT: Tensor) -> Tensor:
    """Numbers of the documents in their order, from 0 in each row: int64 ``[batch, time]``, never decreasing."""
    return _begins(document_ids_BT).cumsum(dim=1) - 1


def document_options(
    document_ids_BT: Tensor, boundaries: Boundaries, implementation: str, dtype: torch.dtype
) -> dict[str, Any]:
    """What a decoder is given so that its attention stays within documents.

    Args:
        document_ids_BT: int64 ``[batch, time]``; equal numbers are one document, -1 is padding.
        boundaries: of these documents.
        implementation: the decoder's attention implementation.
        dtype: the model's, for additive masks.

    Returns:
        ``attention_mask``, ``position_ids`` and, for ``priorkit_packed``, the boundaries.
    """
    options = {
        "attention_mask": document_mask(document_ids_BT, implementation, dtype),
        "position_ids": document_positions(document_ids_BT),
    }
    return options | boundary_options(boundaries, implementation)


def boundary_options(boundaries: Boundaries, implementation: str) -> dict[str, Any]:
    """The boundaries as a decoder passes them on to ``priorkit_packed``; nothing for other implementations."""
    if implementation != PACKED:
        return {}
    return {"document_starts": boundaries["starts"], "longest_document": boundaries["longest"]}


def document_mask(document_ids_BT: Tensor, implementation: str, dtype: torch.dtype) -> Tensor:
    """What to pass as ``attention_mask`` so that attention stays within documents.

    Args:
        document_ids_BT: int64 ``[batch, time]``; equal numbers are one document, -1 is padding.
        implementation: the decoder's attention implementation.
        dtype: the model's, for additive masks.

    Returns:
        ``[batch, 1, 1, time]`` document numbers for ``priorkit_packed``, else ``[batch, 1, time, time]``:
        bool for ``sdpa``, additive otherwise.
    """
    if implementation == PACKED:
        return document_ids_BT[:, None, None, :]
    length = document_ids_BT.shape[1]
    seen = document_ids_BT[:, :, None] == document_ids_BT[:, None, :]
    seen = (seen & torch.ones(length, length, dtype=torch.bool, device=seen.device).tril())[:, None]
    if implementation == "sdpa":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def document_positions(document_ids_BT: Tensor) -> Tensor:
    """Positions that start at 0 in every document.

    Args:
        document_ids_BT: int64 ``[batch, time]``; a document's tokens are contiguous.

    Returns:
        int64 ``[batch, time]``.
    """
    places = torch.arange(document_ids_BT.shape[1], device=document_ids_BT.device).expand_as(document_ids_BT)
    return places - (places * _begins(document_ids_BT)).cummax(dim=1).values
