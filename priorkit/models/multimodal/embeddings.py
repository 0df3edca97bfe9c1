"""Token embeddings of text with those of images in their positions."""

from __future__ import annotations

from torch import Tensor


def replace_embeddings(
    embeddings_BTC: Tensor, positions_BT: Tensor, values_NC: Tensor, indices: Tensor | None = None
) -> Tensor:
    """Embeddings with those at the marked positions replaced, in order.

    Args:
        embeddings_BTC: ``[batch, time, width]``.
        positions_BT: bool ``[batch, time]`` with N positions marked.
        values_NC: the N embeddings to insert, ``[N, width]`` or ``[images, positions, width]``; cast to the
            dtype of the others.
        indices: the marked positions in the concatenated rows, int64 ``[N]``, where they are known: the backward
            pass of a mask on a GPU waits for it to find them.
    """
    if indices is not None and embeddings_BTC.device.type == "cuda":
        values = values_NC.reshape(len(indices), -1).to(embeddings_BTC.dtype)
        return embeddings_BTC.flatten(0, 1).index_copy(0, indices, values).view_as(embeddings_BTC)
    positions = positions_BT.unsqueeze(-1).expand_as(embeddings_BTC)
    return embeddings_BTC.masked_scatter(positions, values_NC.to(embeddings_BTC.dtype))
