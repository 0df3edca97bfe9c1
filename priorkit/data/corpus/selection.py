"""Which documents are used: exact duplicates removed, a part of every source held out.

Documents are compared by a hash of their text. What is held out is held out with all its copies, in
whichever source they are, so no text is both trained on and tested on.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problems
from priorkit.data.corpus.token_store import TokenizedSource, blocks, release
from priorkit.data.corpus.tokenization import HASH_BYTES
from priorkit.data.shuffling import mix_bits

TRAINED, DUPLICATE, HELD_OUT, HELD_OUT_COPY = 0, 1, 2, 3
"""What a document is used for; the marks of a source's documents."""

Marks = NDArray[np.uint8]

GROUP_DOCUMENTS = 1 << 20
"""Documents whose hashes are sorted in memory together (some 100 MB)."""

_RECORD = np.dtype([("hash", np.uint8, HASH_BYTES), ("document", np.int64)])


def no_marks(sources: Sequence[TokenizedSource], scratch: Path) -> list[Marks]:
    """Marks of all documents of all sources, in files, all ``TRAINED``."""
    marks: list[Marks] = []
    for number, source in enumerate(sources):
        path = scratch / f"marks-{number:05d}"
        with path.open("wb") as stream:
            stream.truncate(max(1, source.documents))
        marks.append(np.memmap(path, dtype=np.uint8, mode="r+", shape=(max(1, source.documents),)))
    return marks


def mark_duplicates(
    sources: Sequence[TokenizedSource],
    marks: Sequence[Marks],
    scratch: Path,
    group_documents: int = GROUP_DOCUMENTS,
) -> list[int]:
    """Mark every document whose text occurred before, in the order of sources and documents.

    Hashes are distributed over files by their first bits and sorted file by file: memory stays bounded.

    Args:
        sources: with hashes.
        marks: changed in place.
        scratch: for the files.
        group_documents: how many to sort in memory together.

    Returns:
        How many were marked, by source.
    """
    offsets = np.cumsum([0, *(source.documents for source in sources)])
    groups = 1
    while groups * group_documents < offsets[-1] and groups < 1 << 10:
        groups *= 2
    paths = [scratch / f"hashes-{group:04d}" for group in range(groups)]
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb")) for path in paths]
        for source, offset in zip(sources, offsets, strict=False):
            hashes = _hashes(source)
            for part in blocks(source.documents, 1 << 16):
                records = np.empty(part.stop - part.start, dtype=_RECORD)
                records["hash"] = hashes[part]
                records["document"] = np.arange(part.start, part.stop) + offset
                release(hashes)
                first = records["hash"][:, 0].astype(np.int64) << 8 | records["hash"][:, 1]
                group = first * groups >> 16
                records = records[np.argsort(group, kind="stable")]
                ends = np.cumsum(np.bincount(group, minlength=groups))
                for stream, piece in zip(streams, np.split(records, ends[:-1]), strict=True):
                    stream.write(piece.tobytes())
    counts = [0] * len(sources)
    for path in paths:
        records = np.fromfile(path, dtype=_RECORD)
        path.unlink()
        words = np.ascontiguousarray(records["hash"]).view(np.uint64).reshape(-1, 2)
        order = np.lexsort((words[:, 1], words[:, 0]))  # stable: the first copy comes first
        same = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        repeated = np.sort(records["document"][order[1:][same]])
        for number, mark in enumerate(marks):
            low, high = np.searchsorted(repeated, offsets[number : number + 2])
            mark[repeated[low:high] - offsets[number]] = DUPLICATE
            counts[number] += int(high - low)
            release(mark)
    return counts


def _hashes(source: TokenizedSource) -> NDArray[np.uint8]:
    if source.hashes is None:
        raise ValueError(f"no hashes of '{source.name}' were asked for")
    return source.hashes


@dataclass(frozen=True)
class HeldOutDocuments:
    """What is held out of one source.

    Attributes:
        documents: int64, their numbers in the source, rising.
        tokens: their tokens.
        copies: documents of the source that are copies of something held out, and so are not used.
    """

    documents: NDArray[np.int64]
    tokens: int
    copies: int


def hold_out(
    sources: Sequence[TokenizedSource], marks: Sequence[Marks], amount: float, seed: int
) -> list[HeldOutDocuments]:
    """Choose the held-out documents of every source and mark them.

    A document's place in the order of choice is its hash mixed with the seed and the source's name, so
    the choice does not depend on the other documents or sources. Whole documents are taken until the
    amount is reached.

    Args:
        sources: with hashes.
        marks: changed in place.
        amount: below 1 a share of each source's tokens, from 1 on a number of tokens of each source.
        seed: chooses which.

    Raises:
        InputError: a source has nothing left to train on; all such sources are named.
    """
    problems = Problems(InputError)
    chosen: list[tuple[NDArray[np.int64], int]] = []
    texts: list[NDArray[np.uint64]] = []
    for source, mark in zip(sources, marks, strict=True):
        documents, words, tokens = _choose(source, mark, amount, seed)
        chosen.append((documents, tokens))
        texts.append(words)
    held = np.unique(np.concatenate(texts))
    result: list[HeldOutDocuments] = []
    for source, mark, (documents, tokens) in zip(sources, marks, chosen, strict=True):
        copies = left = 0
        for part in blocks(source.documents):
            hit = np.isin(_words(source, part), held, assume_unique=False) & (mark[part] == TRAINED)
            mark[part][hit] = HELD_OUT_COPY
            copies += int(hit.sum())
            left += int((mark[part] == TRAINED).sum())
        mark[documents] = HELD_OUT
        release(mark)
        result.append(HeldOutDocuments(documents, tokens, copies - len(documents)))
        if left == 0:
            problems.add(
                f"of '{source.name}' nothing is left to train on: "
                f"{len(documents):,} documents with {tokens:,} tokens are held out",
                where="--held-out",
                hint="hold out less, or add documents",
            )
    problems.raise_if_any()
    return result


def _words(source: TokenizedSource, part: slice) -> NDArray[np.uint64]:
    """The first eight bytes of the documents' hashes."""
    hashes = _hashes(source)
    words = np.ascontiguousarray(hashes[part]).view(np.uint64).reshape(-1, 2)[:, 0].copy()
    release(hashes)
    return words


def _keys(words: NDArray[np.uint64], name: str, seed: int) -> NDArray[np.uint64]:
    return mix_bits(words, (seed << 32) | zlib.crc32(name.encode()))


def _choose(
    source: TokenizedSource, mark: Marks, amount: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], int]:
    """Distinct documents in the order of their keys until the amount is reached: numbers, hashes, tokens."""
    bins = np.zeros(1 << 16)
    for part in blocks(source.documents):
        lengths = np.diff(source.starts[part.start : part.stop + 1]) * (mark[part] == TRAINED)
        keys = _keys(_words(source, part), source.name, seed)
        bins += np.bincount((keys >> np.uint64(48)).astype(np.int64), weights=lengths, minlength=1 << 16)
    ends = np.cumsum(bins)
    wanted = amount * ends[-1] if amount < 1 else amount
    reach = wanted
    while True:
        last = int(np.searchsorted(ends, reach))
        documents, words, keys, lengths = _below(source, mark, seed, last)
        order = np.lexsort((documents, keys))
        documents, words, lengths = documents[order], words[order], lengths[order]
        distinct = np.concatenate([[True], words[1:] != words[:-1]])[: len(words)]
        documents, words, lengths = documents[distinct], words[distinct], lengths[distinct]
        totals = np.cumsum(lengths)
        if last >= len(ends) or (len(totals) and totals[-1] >= wanted):
            break
        reach *= 2  # copies fill part of what was read
    count = int(np.searchsorted(totals, wanted)) + 1
    in_order = np.argsort(documents[:count])
    return documents[:count][in_order], words[:count], int(lengths[:count].sum())


def _below(source: TokenizedSource, mark: Marks, seed: int, last: int) -> tuple[NDArray[Any], ...]:
    """Documents to train on whose key's first 16 bits are at most ``last``."""
    parts: list[tuple[NDArray[Any], ...]] = []
    for part in blocks(source.documents):
        words = _words(source, part)
        keys = _keys(words, source.name, seed)
        near = ((keys >> np.uint64(48)) <= np.uint64(last)) & (mark[part] == TRAINED)
        lengths = np.diff(source.starts[part.start : part.stop + 1])
        parts.append((np.flatnonzero(near) + part.start, words[near], keys[near], lengths[near]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
