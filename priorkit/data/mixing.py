"""Mixing: how many tokens each source gives, and in which order its documents come.

Weights are shares of *tokens*. A source's documents are visited in a seeded order, epoch after epoch,
until its budget is met; its last document is cut so that the share is exact. Documents of all sources
are then interleaved by how far through its own budget each one stands, so that any stretch of the
corpus holds the mixture. Everything is a pure function of document lengths, weights and seed.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import Problems, UsageError, nearest
from priorkit.data.order import sample_ids


@dataclass(frozen=True)
class Draw:
    """The documents of a corpus in order.

    Attributes:
        source: int64 ``[documents]``, which source (in the order given).
        document: int64 ``[documents]``, which of its documents.
        length: int64 ``[documents]``, how many of its tokens are taken, from its start.
    """

    source: NDArray[np.int64]
    document: NDArray[np.int64]
    length: NDArray[np.int64]


def budgets(
    sizes: Mapping[str, int], weights: Mapping[str, float], tokens: int | None, max_epochs: float
) -> dict[str, int]:
    """Tokens that each source is to give.

    Args:
        sizes: tokens in each source.
        weights: share of tokens by source, any positive scale; empty means in proportion to the sizes.
        tokens: tokens of the corpus; None means as many as give every source at most once.
        max_epochs: how often a source may be repeated.

    Raises:
        UsageError: unknown names, weights that are negative or all zero, or a source that would be
            repeated too often; what is missing is said.
    """
    problems = Problems(UsageError)
    for name in weights:
        if name not in sizes:
            problems.add(f"no source is named '{name}'", where="--weight", hint=nearest(name, sizes))
        elif weights[name] < 0:
            problems.add(f"the weight of '{name}' is negative ({weights[name]})", where="--weight")
    if weights:
        absent = [name for name in sizes if name not in weights]
        if absent:
            problems.add(
                f"no weight for {', '.join(absent)}", where="--weight", hint="give 0 to leave one out"
            )
    problems.raise_if_any()
    shares = {name: float(weights[name]) if weights else float(size) for name, size in sizes.items()}
    scale = sum(shares.values())
    if scale <= 0:
        raise UsageError("all weights are zero", where="--weight")
    shares = {name: share / scale for name, share in shares.items()}
    if tokens is None:
        tokens = int(min(sizes[name] / share for name, share in shares.items() if share > 0))
    wanted = {name: round(share * tokens) for name, share in shares.items()}
    for name, count in wanted.items():
        if count > sizes[name] * max_epochs:
            problems.add(
                f"{count:,} tokens of '{name}' are wanted, it has {sizes[name]:,}: "
                f"{count / max(1, sizes[name]):.1f} epochs, allowed are {max_epochs:g}",
                hint=f"lower --tokens or its weight, raise --max-epochs, or add {count - int(sizes[name] * max_epochs):,} tokens",
            )
    problems.raise_if_any()
    return wanted


def draw(lengths: Mapping[str, NDArray[np.int64]], wanted: Mapping[str, int], seed: int) -> Draw:
    """Choose and order documents so that every source gives exactly its budget.

    Args:
        lengths: tokens of each document by source.
        wanted: tokens that each source is to give.
        seed: chooses the order of documents.
    """
    sources: list[NDArray[np.int64]] = []
    documents: list[NDArray[np.int64]] = []
    taken: list[NDArray[np.int64]] = []
    progress: list[NDArray[np.float64]] = []
    for number, (name, sizes) in enumerate(lengths.items()):
        budget = wanted[name]
        if budget == 0:
            continue
        epochs = -(-budget // int(sizes.sum()))
        order = sample_ids(_source_seed(seed, name), 0, epochs * len(sizes), len(sizes))
        ends = np.cumsum(sizes[order])
        count = int(np.searchsorted(ends, budget)) + 1
        order, ends = order[:count], ends[:count]
        counts = sizes[order].copy()
        counts[-1] -= ends[-1] - budget
        sources.append(np.full(count, number, dtype=np.int64))
        documents.append(order)
        taken.append(counts)
        progress.append((ends - sizes[order] / 2) / budget)
    if not sources:
        nothing = np.zeros(0, dtype=np.int64)
        return Draw(nothing, nothing, nothing)
    merged = np.argsort(np.concatenate(progress), kind="stable")
    return Draw(
        np.concatenate(sources)[merged], np.concatenate(documents)[merged], np.concatenate(taken)[merged]
    )


def _source_seed(seed: int, name: str) -> int:
    """A source's own seed, so that adding another source does not change its order."""
    return (seed << 32) | zlib.crc32(name.encode())
