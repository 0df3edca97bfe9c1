"""Cutting the sources of ``label-corpus`` into segments on disk."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.process.progress import track
from priorkit.data.images.decoding import ImageRef
from priorkit.data.io.rejects import Rejects
from priorkit.data.text.segments import Record, SegmentStore, read_records, segments_of
from priorkit.labelling.settings import LabelCorpusSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SEGMENTATION = "cuts.json"
"""File with the counts and the rejected rows, next to the segments."""


@dataclass(frozen=True)
class SourceSegments:
    """The segments of one source among those of all.

    Attributes:
        number: number of the source, from 0.
        name: name of the source.
        documents: documents read.
        rows: the source's segments among all segments.
    """

    number: int
    name: str
    documents: int
    rows: slice


@dataclass(frozen=True)
class Segmentation:
    """The segments of all sources, on disk.

    Attributes:
        counts: number of segments by source, in order.
        documents: number of documents by source.
        seen: rows read, usable or not.
        rejected: the rejected rows.
    """

    counts: Mapping[str, int]
    documents: Mapping[str, int]
    seen: int
    rejected: Sequence[dict[str, Any]]

    @property
    def segments(self) -> int:
        """Number of segments of all sources."""
        return sum(self.counts.values())

    def sources(self) -> Iterator[SourceSegments]:
        """The sources in order, with the places of their segments."""
        start = 0
        for number, (name, count) in enumerate(self.counts.items()):
            yield SourceSegments(number, name, self.documents[name], slice(start, start + count))
            start += count

    def rejects(self, limit: float) -> Rejects:
        """The rejected rows, to which others can be added."""
        rejects = Rejects(limit)
        rejects.rows, rejects.total = list(self.rejected), self.seen
        return rejects


def read_segmentation(folder: Path) -> Segmentation:
    """Read what :func:`cut_sources` noted."""
    return Segmentation(**json.loads((folder / SEGMENTATION).read_text(encoding="utf-8")))


def cut_sources(
    settings: LabelCorpusSettings,
    sources: Mapping[str, Path],
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    check_images: bool = False,
) -> None:
    """Cut all sources into segments, one file per source.

    Args:
        settings: label set, length of a segment, text column, limits.
        sources: paths by name, in order.
        tokenizer: counts the tokens.
        folder: an existing folder for the segments and the counts.
        check_images: whether the labeller sees images, so that conversations with a broken one are rejected.

    Raises:
        InputError: a source is empty or damaged, or too many rows are rejected.
    """
    store = SegmentStore(folder, len(sources))
    rejects = Rejects(settings.reject_limit)
    documents: dict[str, int] = {}
    counts: dict[str, int] = {}
    # A conversation is one segment, whatever its length.
    length = sys.maxsize if settings.labels == "abilities" else settings.segment_tokens
    for number, (name, path) in enumerate(sources.items()):
        documents[name] = 0

        def counted(name: str = name, path: Path = path) -> Iterator[Record]:
            records = _records(settings, name, path, rejects, check_images)
            for record in itertools.islice(records, settings.max_documents or None):
                documents[name] += 1
                yield record

        tracked = track(counted(), f"cut {name}", total=0, unit="documents")
        counts[name] = store.write(number, segments_of(tracked, name, tokenizer, length))
    rejects.raise_if_over_limit()
    segmentation = Segmentation(counts, documents, rejects.total, rejects.rows)
    (folder / SEGMENTATION).write_text(json.dumps(asdict(segmentation)), encoding="utf-8")


def _records(
    settings: LabelCorpusSettings, name: str, path: Path, rejects: Rejects, check_images: bool
) -> Iterator[Record]:
    from priorkit.data.conversations.labelled_conversations import conversation_records

    if settings.labels == "abilities":
        return conversation_records(path, rejects, settings.layout(name), check_images)
    return read_records(path, rejects, settings.text_column)


def segment_images(
    settings: LabelCorpusSettings, sources: Mapping[str, Path], store: SegmentStore
) -> Callable[[NDArray[np.int64]], Iterator[tuple[ImageRef, ...]]]:
    """What gives the images of conversations by their numbers, ascending, counted over all sources."""
    from priorkit.data.conversations.labelled_conversations import conversation_images

    names, paths = list(sources), list(sources.values())

    def images_of(numbers: NDArray[np.int64]) -> Iterator[tuple[ImageRef, ...]]:
        for source, places in itertools.groupby(store.places(numbers), key=lambda place: place[0]):
            ids = (document for _, document in places)
            yield from conversation_images(paths[source], ids, settings.layout(names[source]))

    return images_of
