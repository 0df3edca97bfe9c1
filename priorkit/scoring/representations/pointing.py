"""Pointing: whether the patch that is most similar to a text is one of the right ones."""

from __future__ import annotations

import torch
from torch import Tensor


def pointing_hits(patches: Tensor, text: Tensor, right: Tensor) -> tuple[int, bool, float]:
    """The pointing game on patches (Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop").

    Args:
        patches: L2-normalized features ``[patches, dim]`` of an image's patches.
        text: L2-normalized ``[dim]``.
        right: bool ``[patches]``.

    Returns:
        The patch with the largest cosine, of equal ones the first; whether it is right; the share of right
        patches, which a random choice reaches.
    """
    taken = int(torch.argmax(patches.double() @ text.double()))
    return taken, bool(right[taken]), float(right.double().mean())
