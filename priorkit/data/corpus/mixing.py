"""Mixing: how many tokens each source gives, and in which order its documents come.

Weights are shares of *tokens* unless documents are asked for. A source's documents are visited in a
seeded order, epoch after epoch, until its budget is met; its last document is cut so that the share is
exact. Documents of all sources are then interleaved by how much of its budget is used up,
so that any stretch of the corpus holds the mixture. Everything is a pure function of document lengths,
weights and seed, and is computed block by block: memory does not grow with the corpus.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import Problems, UsageError, nearest
from priorkit.data.corpus.selection import TRAINED, Marks
from priorkit.data.corpus.token_store import BLOCK, TokenizedSource, blocks, release
from priorkit.data.shuffling import sample_ids


@dataclass(frozen=True)
class DocumentPool:
    """Documents drawn from one stream: a source's, or those of a source with the same labels.

    Attributes:
        source: which source.
        labels: the documents' label bits; 0 where labels are ignored.
        name: seeds its order.
        ids: int64, the documents; None for all of the source.
        documents: how many.
        tokens: their tokens.
    """

    source: int
    labels: int
    name: str
    ids: NDArray[np.int64] | None
    documents: int
    tokens: int


def make_pools(
    sources: Sequence[TokenizedSource], marks: Sequence[Marks] | None, by_labels: bool, scratch: Path
) -> list[DocumentPool]:
    """Sort the training documents into pools.

    Args:
        sources: the tokenised sources.
        marks: what each document is used for; None where all are trained on.
        by_labels: whether documents with different labels go to different pools.
        scratch: for the lists of documents.
    """
    pools: list[DocumentPool] = []
    for number, source in enumerate(sources):
        if marks is None and not by_labels:
            pools.append(DocumentPool(number, 0, source.name, None, source.documents, source.tokens))
            continue
        counts: dict[int, tuple[int, int]] = {}
        stem = scratch / f"pool-{number:05d}"
        for part in blocks(source.documents):
            lengths = np.diff(source.starts[part.start : part.stop + 1])
            labels = (
                np.asarray(source.labels[part])
                if by_labels and source.labels is not None
                else np.zeros(len(lengths), dtype=np.uint8)
            )
            used = np.ones(len(lengths), dtype=bool) if marks is None else marks[number][part] == TRAINED
            for bits in np.unique(labels[used]).tolist():
                here = np.flatnonzero(used & (labels == bits))
                with stem.with_suffix(f".{bits}").open("ab") as stream:
                    stream.write((here + part.start).astype(np.int64).tobytes())
                documents, tokens = counts.get(bits, (0, 0))
                counts[bits] = documents + len(here), tokens + int(lengths[here].sum())
            release(source.starts)
        for bits, (documents, tokens) in sorted(counts.items()):
            ids = np.memmap(stem.with_suffix(f".{bits}"), dtype=np.int64, mode="r")
            name = f"{source.name}\0{bits}" if by_labels else source.name
            pools.append(DocumentPool(number, bits, name, ids, documents, tokens))
    return pools


def check_weights(names: Sequence[str], weights: Mapping[str, float], where: str = "--weight") -> None:
    """Check that weights name every source and no other, and that they can be shares.

    Raises:
        UsageError: unknown or missing names, weights that are negative or all zero.
    """
    problems = Problems(UsageError)
    for name in weights:
        if name not in names:
            problems.add(f"no source is named '{name}'", where=where, hint=nearest(name, names))
        elif weights[name] < 0:
            problems.add(f"the weight of '{name}' is negative ({weights[name]})", where=where)
    absent = [name for name in names if name not in weights]
    if weights and absent:
        problems.add(f"no weight for {', '.join(absent)}", where=where, hint="give 0 to leave one out")
    problems.raise_if_any()
    if weights and sum(weights.values()) <= 0:
        raise UsageError("all weights are zero", where=where)


def budgets(
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    total: int | None,
    epochs: Mapping[str, float],
    unit: str = "tokens",
) -> dict[str, int]:
    """How much each source is to give, in tokens or in documents.

    Args:
        sizes: what each source has.
        weights: share by source, any positive scale; empty means in proportion to the sizes.
        total: the sum over all; None means as much as possible with every source used at most once.
        epochs: how often each source may be repeated.
        unit: ``tokens`` or ``documents``, for messages.

    Raises:
        UsageError: weights that cannot be shares, or sources that would be repeated too often; the
            message says what each lacks.
    """
    check_weights(list(sizes), weights)
    shares = {name: float(weights[name]) if weights else float(size) for name, size in sizes.items()}
    scale = sum(shares.values())
    shares = {name: share / scale if scale else 0.0 for name, share in shares.items()}
    if total is None:
        total = int(min((sizes[name] / share for name, share in shares.items() if share > 0), default=0))
    wanted = {name: round(share * total) for name, share in shares.items()}
    problems = Problems(UsageError)
    for name, count in wanted.items():
        missing = count - int(sizes[name] * epochs[name])
        if missing > 0:
            problems.add(
                f"{count:,} {unit} of '{name}' are needed, it has {sizes[name]:,}: "
                f"{count / max(1, sizes[name]):.1f} epochs, allowed are {epochs[name]:g}",
                hint=f"lower --tokens or its weight, raise --max-epochs, or add "
                f"{-(-missing // max(1, int(epochs[name]))):,} {unit}",
            )
    problems.raise_if_any()
    return wanted


def document_budgets(
    pools: Sequence[DocumentPool],
    sources: Sequence[TokenizedSource],
    weights: Mapping[str, float],
    tokens: int | None,
    epochs: Mapping[str, float],
    seed: int,
) -> list[int]:
    """Tokens of each pool such that its share of the *documents* is its weight; no document is cut.

    The number of documents follows from the sources' mean lengths, so the corpus has about ``tokens``.

    Raises:
        UsageError: as :func:`budgets`.
    """
    counts = {sources[pool.source].name: pool.documents for pool in pools}
    check_weights(list(counts), weights)
    shares = np.array([weights[name] if weights else count for name, count in counts.items()], dtype=float)
    shares = shares / shares.sum()
    means = np.array([pool.tokens / pool.documents for pool in pools])
    total = None if tokens is None else max(1, round(tokens / float(shares @ means)))
    wanted = budgets(counts, weights, total, epochs, "documents")
    return [
        _tokens_of_first(pool, sources[pool.source], count, seed)
        for pool, count in zip(pools, wanted.values(), strict=True)
    ]


def _tokens_of_first(pool: DocumentPool, source: TokenizedSource, count: int, seed: int) -> int:
    epochs, rest = divmod(count, pool.documents)
    total = epochs * pool.tokens
    for part in blocks(rest, BLOCK):
        first = epochs * pool.documents
        total += int(source.bounds(_visited(pool, seed, first + part.start, first + part.stop))[1].sum())
    return total


def _visited(pool: DocumentPool, seed: int, start: int, stop: int) -> NDArray[np.int64]:
    """The documents at positions ``start`` to ``stop`` of the pool's endless order."""
    places = sample_ids(_pool_seed(seed, pool.name), start, stop, pool.documents)
    if pool.ids is None:
        return places
    visited = np.asarray(pool.ids[places])
    if pool.documents > 1 << 21:
        release(pool.ids)
    return visited


def _pool_seed(seed: int, name: str) -> int:
    """A pool's own seed, so that adding another source does not change its order."""
    return (seed << 32) | zlib.crc32(name.encode())


@dataclass(frozen=True)
class DrawnDocuments:
    """Documents of a corpus in order; all arrays are int64 ``[documents]``.

    Attributes:
        pool: which pool.
        document: which document of the pool's source.
        begin: where its tokens begin in the source.
        length: how many of its tokens are taken, from its start.
    """

    pool: NDArray[np.int64]
    document: NDArray[np.int64]
    begin: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, part: slice | NDArray[np.int64]) -> DrawnDocuments:
        return DrawnDocuments(self.pool[part], self.document[part], self.begin[part], self.length[part])


def concatenated(draws: Sequence[DrawnDocuments]) -> DrawnDocuments:
    """Draws one after another."""
    empty = np.zeros(0, dtype=np.int64)
    columns = [(draw.pool, draw.document, draw.begin, draw.length) for draw in draws] or [(empty,) * 4]
    return DrawnDocuments(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def draw(
    pools: Sequence[DocumentPool], sources: Sequence[TokenizedSource], wanted: Sequence[int], seed: int
) -> Iterator[DrawnDocuments]:
    """Draw and order documents so that every pool gives exactly its budget.

    Args:
        pools: the pools.
        sources: the tokenised sources.
        wanted: tokens that each pool is to give.
        seed: chooses the order of documents.

    Yields:
        Documents in order, some thousands at a time; block boundaries have no meaning.
    """
    streams = [
        _stream(number, pool, sources[pool.source], wanted[number], seed)
        for number, pool in enumerate(pools)
        if wanted[number]
    ]
    waiting = [next(stream) for stream in streams]
    while True:
        for number, (_, progress) in enumerate(waiting):
            if not len(progress):
                waiting[number] = next(streams[number], waiting[number])
        # The order is settled up to the position of the least advanced stream.
        ends = [progress[-1] for _, progress in waiting if len(progress)]
        if not ends:
            return
        settled = [np.searchsorted(progress, min(ends), side="right") for _, progress in waiting]
        parts = [
            (documents[:count], progress[:count])
            for (documents, progress), count in zip(waiting, settled, strict=True)
        ]
        waiting = [
            (documents[count:], progress[count:])
            for (documents, progress), count in zip(waiting, settled, strict=True)
        ]
        order = np.argsort(np.concatenate([progress for _, progress in parts]), kind="stable")
        yield concatenated([documents for documents, _ in parts])[order]


def _stream(
    number: int, pool: DocumentPool, source: TokenizedSource, budget: int, seed: int
) -> Iterator[tuple[DrawnDocuments, NDArray[np.float64]]]:
    """A pool's documents in order, with the position of each one's middle in the budget, 0 to 1."""
    given = position = 0
    step = min(BLOCK, pool.documents)
    while given < budget:
        documents = _visited(pool, seed, position, position + step)
        begins, lengths = source.bounds(documents)
        ends = given + np.cumsum(lengths)
        count = int(np.searchsorted(ends, budget)) + 1
        documents, begins, lengths, ends = (
            documents[:count],
            begins[:count],
            lengths[:count].copy(),
            ends[:count],
        )
        progress = (ends - lengths / 2) / budget
        lengths[-1] -= max(0, int(ends[-1]) - budget)
        yield (
            DrawnDocuments(np.full(len(lengths), number, dtype=np.int64), documents, begins, lengths),
            progress,
        )
        given, position = int(ends[-1]), position + step
