"""Token embeddings of text with those of images in their positions."""

from __future__ import annotations

from torch import Tensor


def replace_embeddings(embeddings_BTC: Tensor, positions_BT: Tensor, values_NC: Tensor) -> Tensor:
    """Embeddings with those at the marked positions replaced, in order.

    Args:
        embeddings_BTC: ``[batch, time, width]``.
        positions_BT: bool ``[batch, time]`` with N positions marked.
        values_NC: the N embeddings to insert, ``[N, width]``; cast to the dtype of the others.
    """
    positions = positions_BT.unsqueeze(-1).expand_as(embeddings_BTC)
    return embeddings_BTC.masked_scatter(positions, values_NC.to(embeddings_BTC.dtype))
