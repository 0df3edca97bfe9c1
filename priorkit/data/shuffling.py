"""Order of samples: a pure function of (seed, position), so that resuming needs one integer.

Epoch *e* visits all *n* samples in the order of a keyed permutation of ``range(n)``. The permutation is
a four-round Feistel network with cycle walking, so any position is computed in constant memory and time:
nothing is stored, whatever the number of samples, processes or workers.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 4


def mix_bits(value: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """A 64-bit finaliser (multiply, xor-shift) as the Feistel network's round function."""
    mixed = value + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def permute(positions: NDArray[np.int64], count: int, key: int) -> NDArray[np.int64]:
    """Map positions 0..count-1 to a permutation of 0..count-1 chosen by ``key``.

    Args:
        positions: int64, any shape, values in [0, count).
        count: the number of samples.
        key: which permutation; derived from seed and epoch.
    """
    half = max(1, (max(count - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = _round_keys(key)

    def feistel(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = value >> np.uint64(half), value & mask
        for round_key in keys:
            left, right = right, left ^ (mix_bits(right, round_key) & mask)
        return (left << np.uint64(half)) | right

    with np.errstate(over="ignore"):
        result = feistel(positions.astype(np.uint64))
        # The network permutes a power of four; values outside the range are permuted again until they fall inside.
        while (outside := result >= np.uint64(count)).any():
            result[outside] = feistel(result[outside])
    return result.astype(np.int64)


def sample_ids(seed: int, start: int, stop: int, count: int) -> NDArray[np.int64]:
    """The samples at positions ``start`` to ``stop`` of an endless stream over ``count`` samples.

    Args:
        seed: the run's seed.
        start, stop: positions; ``position // count`` is the epoch.
        count: the number of samples.

    Returns:
        int64 of length ``stop - start``.
    """
    positions = np.arange(start, stop, dtype=np.int64)
    epochs, within = np.divmod(positions, count)
    result = np.empty_like(positions)
    for epoch in np.unique(epochs):
        chosen = epochs == epoch
        result[chosen] = permute(within[chosen], count, key=_key(seed, int(epoch)))
    return result


@lru_cache(maxsize=256)
def _round_keys(key: int) -> tuple[int, ...]:
    return tuple(int(word) for word in np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64))


@lru_cache(maxsize=256)
def _key(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0])
