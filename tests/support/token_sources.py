"""Tokenised sources out of numbers, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from priorkit.data.corpus.mixing import DocumentPool, DrawnDocuments, concatenated
from priorkit.data.corpus.token_store import TokenFile, TokenizedSource


def source(
    name: str,
    lengths: Sequence[int] | np.ndarray,
    *,
    hashes: Sequence[bytes] | None = None,
    labels: Sequence[int] | None = None,
    path: Path | None = None,
    tokens: np.ndarray | None = None,
) -> TokenizedSource:
    """A source whose documents have these lengths; its tokens are in ``path``, if they are read."""
    starts = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
    files = []
    if path is not None:
        content = np.arange(starts[-1]) if tokens is None else tokens
        content.astype(np.uint16).tofile(path)
        files.append(TokenFile(path, 0, int(starts[-1])))
    return TokenizedSource(
        name,
        np.dtype(np.uint16),
        files,
        starts,
        None if hashes is None else np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 16),
        None if labels is None else np.asarray(labels, dtype=np.uint8),
    )


def whole(sources: Sequence[TokenizedSource]) -> list[DocumentPool]:
    """A pool for each source."""
    return [DocumentPool(n, 0, s.name, None, s.documents, s.tokens) for n, s in enumerate(sources)]


def stream(lengths: Sequence[int]) -> DrawnDocuments:
    """Documents of one pool in order."""
    if not lengths:
        return concatenated([])
    ends = np.cumsum(np.asarray(lengths, dtype=np.int64))
    count = len(lengths)
    return DrawnDocuments(
        np.zeros(count, np.int64), np.arange(count), ends - np.asarray(lengths), np.asarray(lengths, np.int64)
    )
