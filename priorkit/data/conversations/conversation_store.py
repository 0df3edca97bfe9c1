"""Samples of a training run: conversations kept on disk, read on demand and drawn as a mixture."""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError, Problem, UsageError
from priorkit.data.conversations.conversation import Conversation, Turn
from priorkit.data.conversations.token_mixture import draw_by_tokens
from priorkit.data.corpus.mixing import budgets
from priorkit.data.images.decoding import ImageRef
from priorkit.data.shuffling import sample_ids
from priorkit.data.spool import Spool


class ConversationStore(Sequence[Conversation]):
    """Conversations in an unnamed file; memory holds eight bytes for each, however long they are.

    The file vanishes with the process. Reading is safe in forked worker processes. An image in memory that
    consecutive conversations share (the regions of a row) is stored once.

    Args:
        folder: where there is room on disk.
    """

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder)
        self._ends = array("q", [0])
        self._index: NDArray[np.int64] | None = None
        self._latest: list[tuple[bytes, int]] = []

    def append(self, conversation: Conversation) -> None:
        """Add one at the end."""
        offsets = [
            next((offset for content, offset in self._latest if content is image.content), None)
            for image in conversation.images
        ]
        head = {
            "id": conversation.id,
            "ability": conversation.ability,
            "turns": [(turn.role, turn.text) for turn in conversation.turns],
            "payload": conversation.payload,
            "images": [
                (
                    image.name,
                    None if image.path is None else str(image.path),
                    len(image.content or b""),
                    offset,
                )
                for image, offset in zip(conversation.images, offsets, strict=True)
            ],
        }
        line = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass")
        contents = [
            image.content or b""
            for image, offset in zip(conversation.images, offsets, strict=True)
            if offset is None
        ]
        self._spool.add(len(line).to_bytes(8, "little"), line, *contents)
        *starts, end = accumulate(map(len, contents), initial=self._ends[-1] + 8 + len(line))
        if contents:
            self._latest = list(zip(contents, starts, strict=True))
        self._ends.append(end)
        self._index = None

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._index is None else len(self._index) - 1

    def seal(self) -> None:
        """Finish appending; from now on conversations can be read."""
        self._spool.flush()
        self._index = np.asarray(self._ends, dtype=np.int64)
        self._ends, self._latest = array("q", [0]), []

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        if self._index is None:
            raise ValueError("the store is not sealed yet")
        start, stop = int(self._index[index]), int(self._index[index + 1])
        content = self._spool.read((start, stop - start))
        length = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + length].decode("utf-8", "surrogatepass"))
        images: list[ImageRef] = []
        at = 8 + length
        for name, path, size, offset in head["images"]:
            if offset is None:
                image = content[at : at + size]
                at += size
            else:
                image = self._spool.read((offset, size))
            images.append(ImageRef(name, None if path is None else Path(path), image or None))
        turns = tuple(Turn(role, text) for role, text in head["turns"])
        return Conversation(head["id"], turns, tuple(images), head["ability"], head["payload"])


@dataclass(frozen=True)
class ConversationMixture:
    """The samples of a run: conversations in the order drawn, with their images numbered consecutively.

    Attributes:
        store: all usable conversations.
        drawn: int64 ``[samples]``, indices into the store; an index may occur more than once.
        first_image: int64 ``[conversations + 1]``, the number of each stored conversation's first image.
        names: the sources.
        origin: int64 ``[samples]``, the index in ``names`` of each sample's source.
        tokens: int64 ``[conversations]``, supervised tokens of each stored conversation, where they were counted.
    """

    store: ConversationStore
    drawn: NDArray[np.int64]
    first_image: NDArray[np.int64]
    names: tuple[str, ...]
    origin: NDArray[np.int64]
    tokens: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> Conversation:
        if not 0 <= index < len(self.drawn):
            raise IndexError(index)
        return self.store[int(self.drawn[index])]

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    def images_of(self, index: int) -> range:
        """The numbers of a sample's images."""
        position = int(self.drawn[index])
        return range(int(self.first_image[position]), int(self.first_image[position + 1]))

    @property
    def sources(self) -> dict[str, int]:
        """How many samples are of each source."""
        counts = np.bincount(self.origin, minlength=len(self.names))
        return dict(zip(self.names, counts.tolist(), strict=True))

    @property
    def token_shares(self) -> dict[str, dict[str, float]]:
        """Supervised tokens of each source and its share of all; empty where they were not counted."""
        if self.tokens is None:
            return {}
        sums = np.bincount(self.origin, weights=self.tokens[self.drawn], minlength=len(self.names))
        return {
            name: {"supervised_tokens": int(count), "share": float(count / sums.sum())}
            for name, count in zip(self.names, sums.tolist(), strict=True)
        }

    @property
    def images(self) -> StoredImages:
        """All images of the store, by number."""
        return StoredImages(self.store, self.first_image)


class StoredImages(Sequence[ImageRef]):
    """The images of a store, read on demand."""

    def __init__(self, store: ConversationStore, first: NDArray[np.int64]) -> None:
        self._store, self._first = store, first

    def __len__(self) -> int:
        return int(self._first[-1])

    @overload
    def __getitem__(self, index: int) -> ImageRef: ...
    @overload
    def __getitem__(self, index: slice) -> list[ImageRef]: ...
    def __getitem__(self, index: int | slice) -> ImageRef | list[ImageRef]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        if not 0 <= index < len(self):
            raise IndexError(index)
        owner = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._store[owner].images[index - int(self._first[owner])]


def mix_conversations(
    sources: Mapping[str, Iterable[Conversation]],
    folder: Path,
    weights: Mapping[str, float],
    subset: int | None,
    max_epochs: float,
    seed: int,
    tokens_of: Callable[[Conversation], int] | None = None,
) -> ConversationMixture:
    """Store the conversations of all sources and draw the mixture.

    Args:
        sources: conversations by source.
        folder: where the store's file is created.
        weights: share of the *samples* by source, on any scale; empty means in proportion to the sizes.
        subset: samples of the mixture; None means as many as use no sample twice.
        max_epochs: how often a source's samples may be repeated in the mixture.
        seed: chooses which samples are drawn. Without weights and subset there is nothing to choose, and
            the samples keep the order of their files.
        tokens_of: the supervised tokens of a conversation; weights and ``subset`` count these where given.

    Raises:
        InputError: a source is empty.
        UsageError: weights of unknown sources, or more samples asked for than ``max_epochs`` allows.
    """
    store = ConversationStore(folder)
    counts = array("q")
    tokens = array("q")
    sizes: dict[str, int] = {}
    for name, conversations in sources.items():
        before = len(store)
        for conversation in conversations:
            store.append(conversation)
            counts.append(len(conversation.images))
            if tokens_of is not None:
                tokens.append(tokens_of(conversation))
        sizes[name] = len(store) - before
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise InputError(f"no sample of {', '.join(empty)} can be used")
    store.seal()
    first_image = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    drawn = np.arange(len(store), dtype=np.int64)
    counted = np.frombuffer(tokens, dtype=np.int64) if tokens_of is not None else None
    owners = np.repeat(np.arange(len(sizes)), list(sizes.values()))
    if weights or subset is not None:
        if counted is None:
            drawn, _ = draw_mixture(sizes, weights, subset, max_epochs, seed)
        else:
            by_source = {name: counted[owners == index] for index, name in enumerate(sizes)}
            drawn = _drawn_by_tokens(by_source, weights, subset, max_epochs, seed)
    return ConversationMixture(store, drawn, first_image, tuple(sizes), owners[drawn], counted)


def _drawn_by_tokens(
    tokens: Mapping[str, NDArray[np.int64]],
    weights: Mapping[str, float],
    subset: int | None,
    max_epochs: float,
    seed: int,
) -> NDArray[np.int64]:
    try:
        return draw_by_tokens(tokens, weights, subset, max_epochs, seed)
    except UsageError as error:
        raise UsageError(_as_subset(problem) for problem in error.problems) from None


def draw_mixture(
    sizes: Mapping[str, int], weights: Mapping[str, float], subset: int | None, max_epochs: float, seed: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Which samples of the concatenated sources are drawn, and how many of each source.

    Arguments and errors as :func:`mix_conversations`.
    """
    try:
        wanted = budgets(sizes, weights, subset, dict.fromkeys(sizes, max_epochs), unit="samples")
    except UsageError as error:
        raise UsageError(_as_subset(problem) for problem in error.problems) from None
    return _drawn(sizes, wanted, seed), wanted


def _drawn(sizes: Mapping[str, int], wanted: Mapping[str, int], seed: int) -> NDArray[np.int64]:
    """Samples of each source in its own order, the sources interleaved evenly."""
    numbers: list[NDArray[np.int64]] = []
    progress: list[NDArray[np.float64]] = []
    start = 0
    for name, size in sizes.items():
        count = wanted[name]
        numbers.append(start + sample_ids((seed << 32) | zlib.crc32(name.encode()), 0, count, size))
        progress.append((np.arange(count) + 0.5) / max(1, count))
        start += size
    return np.concatenate(numbers)[np.argsort(np.concatenate(progress), kind="stable")]


def _as_subset(problem: Problem) -> Problem:
    """The hint of ``budgets`` names the option for a corpus's length; here it is ``--subset``."""
    return Problem(problem.what, problem.where, problem.hint.replace("--tokens", "--subset"))


def map_samples(
    samples: ConversationMixture, change: Callable[[int, Conversation], Conversation | None], folder: Path
) -> ConversationMixture:
    """Samples drawn from others, each replaced or, where ``change`` gives None, left out."""
    store = ConversationStore(folder)
    counts: list[int] = []
    usable: list[int] = []
    for index in range(len(samples)):
        conversation = change(index, samples[index])
        if conversation is not None:
            store.append(conversation)
            counts.append(len(conversation.images))
            usable.append(index)
    store.seal()
    first_image = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    drawn, origin = np.arange(len(store), dtype=np.int64), samples.origin[np.array(usable, dtype=np.int64)]
    return ConversationMixture(store, drawn, first_image, samples.names, origin)
