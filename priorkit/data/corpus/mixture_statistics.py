"""Budgets of the pools, and their realized shares in the packed rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problems
from priorkit.data.corpus.label_targets import TOLERANCE, has_label, label_budgets
from priorkit.data.corpus.mixing import DocumentPool, budgets, document_budgets
from priorkit.data.corpus.token_store import TokenizedSource
from priorkit.data.text.concepts import LABELS

logger = logging.getLogger(__name__)


def pool_budgets(
    pools: Sequence[DocumentPool],
    sources: Sequence[TokenizedSource],
    *,
    weights: Mapping[str, float],
    unit: str,
    targets: Mapping[str, float],
    tokens: int | None,
    epochs: Mapping[str, float],
    seed: int,
) -> list[int]:
    """Tokens that each pool is to give.

    Args:
        pools: the pools; one per source where there are no targets.
        sources: the tokenised sources.
        weights: share by source; empty means by size, or as the targets have it.
        unit: ``tokens`` or ``documents``, what the weights are shares of.
        targets: share of the tokens by label.
        tokens: tokens of the corpus, or None for as many as use every document at most once.
        epochs: how often each source may be repeated.
        seed: as for :func:`priorkit.data.corpus.mixing.draw`.

    Raises:
        UsageError: it cannot be met.
    """
    if targets:
        names = [source.name for source in sources]
        return label_budgets(pools, names, targets, weights, tokens, epochs)
    if unit == "documents":
        return document_budgets(pools, sources, weights, tokens, epochs, seed)
    sizes = {sources[pool.source].name: pool.tokens for pool in pools}
    return list(budgets(sizes, weights, tokens, epochs).values())


def realized_shares(
    pools: Sequence[DocumentPool],
    sources: Sequence[TokenizedSource],
    wanted: Sequence[int],
    tokens_by_pool: NDArray[np.int64],
    documents: NDArray[np.int64],
    targets: Mapping[str, float],
) -> dict[str, Any]:
    """Shares of the rows' tokens and documents by source and label, and the epochs; logged too.

    Args:
        pools, sources: the pools and the tokenised sources.
        wanted: tokens that each pool was asked for.
        tokens_by_pool: tokens of each pool in the rows.
        documents: documents of each pool in the rows.
        targets: share of the tokens by label.

    Raises:
        InputError: packing discarded so much that a target is missed.
    """
    owner = np.array([pool.source for pool in pools])

    def by_source(values: Any) -> list[float]:
        return np.bincount(owner, values, len(sources)).tolist()

    total, total_wanted = int(tokens_by_pool.sum()), sum(wanted)
    tokens_by_source, counts, wanted_by_source = (
        by_source(tokens_by_pool),
        by_source(documents),
        by_source(wanted),
    )
    sizes = by_source([pool.tokens for pool in pools])
    names = [source.name for source in sources]
    statistics: dict[str, Any] = {
        "shares": {name: count / total for name, count in zip(names, tokens_by_source, strict=True)},
        "document_shares": {name: n / max(1, sum(counts)) for name, n in zip(names, counts, strict=True)},
        "epochs": {
            name: n / size if size else 0.0
            for name, n, size in zip(names, wanted_by_source, sizes, strict=True)
        },
    }
    for number, name in enumerate(names):
        share, of_documents = statistics["shares"][name], statistics["document_shares"][name]
        epochs = statistics["epochs"][name]
        logger.info(
            f"  {name:<16} {share:7.2%} of tokens, {of_documents:7.2%} of documents, {epochs:.2f} epochs"
        )
        if abs(share - wanted_by_source[number] / total_wanted) > TOLERANCE:
            logger.warning(
                f"'{name}' has {share:.2%} of the tokens, {wanted_by_source[number] / total_wanted:.2%} were asked for: "
                "packing discarded more of some sources than of others"
            )
    if targets:
        labels = {label: float(tokens_by_pool[has_label(pools, label)].sum() / total) for label in LABELS}
        statistics["labels"] = labels
        problems = Problems(InputError)
        for label, share in targets.items():
            logger.info(f"  {label:<20} {labels[label]:7.2%} of tokens, target {share:.2%}")
            if abs(labels[label] - share) > TOLERANCE:
                problems.add(
                    f"{label} has {labels[label]:.2%} of the packed tokens, the target is {share:.2%}: packing "
                    "discarded more of some texts than of others",
                    where="--target",
                    hint="pack by concat or best-fit-decreasing, which discard next to nothing, or mix more tokens",
                )
        problems.raise_if_any()
    return statistics
