"""Seeds of what is drawn at random for one sample."""

from __future__ import annotations


def stream_seed(seed: int, position: int) -> int:
    """The seed of the sample at a position of a stream, so that it does not depend on who draws it."""
    return seed * 1_000_003 + position
