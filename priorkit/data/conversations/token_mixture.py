"""A mixture of conversations whose shares are of supervised tokens, exact but for what no conversation fills."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import UsageError
from priorkit.data.corpus.mixing import budgets
from priorkit.data.shuffling import sample_ids

Numbers = NDArray[np.int64]


def draw_by_tokens(
    tokens: Mapping[str, Numbers],
    weights: Mapping[str, float],
    subset: int | None,
    max_epochs: float,
    seed: int,
) -> Numbers:
    """Which conversations of the concatenated sources are drawn, interleaved evenly by tokens.

    Conversations are drawn in random order, a source again from its start once it is used up, as long as they fit its budget; what is
    left is filled with the largest of those not yet drawn that still fit. So a source has at most its budget, and
    less than the smallest conversation left is missing.

    Args:
        tokens: by source, the supervised tokens of each conversation, ``[conversations]``.
        weights: share of the supervised tokens by source, on any scale; empty means in proportion to the sizes.
        subset: supervised tokens of the mixture; None means as many as use no conversation twice.
        max_epochs: how often a source may be repeated.
        seed: draws.

    Raises:
        UsageError: weights of unknown sources, more tokens asked for than ``max_epochs`` allows, or a source whose
            share is smaller than its smallest conversation.
    """
    sizes = {name: int(counts.sum()) for name, counts in tokens.items()}
    wanted = budgets(sizes, weights, subset, dict.fromkeys(sizes, max_epochs), unit="supervised tokens")
    numbers: list[Numbers] = []
    progress: list[NDArray[np.float64]] = []
    start = 0
    for name, counts in tokens.items():
        chosen = _fill(counts, wanted[name], (seed << 32) | zlib.crc32(name.encode()))
        if wanted[name] and not len(chosen):
            raise UsageError(
                f"the share of '{name}' is {wanted[name]} supervised tokens, its smallest conversation has "
                f"{int(counts.min())}",
                where="--weight",
                hint="raise --subset or its weight",
            )
        numbers.append(start + chosen)
        drawn = counts[chosen]
        progress.append((np.cumsum(drawn) - drawn / 2) / max(1, int(drawn.sum())))
        start += len(counts)
    return np.concatenate(numbers)[np.argsort(np.concatenate(progress), kind="stable")]


def _fill(counts: Numbers, budget: int, key: int) -> Numbers:
    """Conversations of one source whose tokens add up to a budget, or as close below it as they get."""
    total = int(counts.sum())
    if not total or not budget:
        return np.zeros(0, dtype=np.int64)
    passes = budget // total + 1
    order = sample_ids(key, 0, int(passes) * len(counts), len(counts))
    ends = np.cumsum(counts[order])
    taken = int(np.searchsorted(ends, budget, side="right"))
    missing = budget - (int(ends[taken - 1]) if taken else 0)
    chosen = [order[:taken]]
    # The rest of this pass, the largest first; the draw's order among equals.
    rest = order[taken : (taken // len(counts) + 1) * len(counts)]
    rest = rest[np.argsort(-counts[rest], kind="stable")]
    for place in rest.tolist():
        if 0 < counts[place] <= missing:
            chosen.append(np.array([place], dtype=np.int64))
            missing -= int(counts[place])
    return np.concatenate(chosen)
