"""Segments: documents cut into pieces of a given number of tokens, without losing a character."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.data.columns import TEXTS
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import read_rows
from priorkit.data.text.document_encoder import document_encoder
from priorkit.data.text.documents import (
    is_blank,
    is_plain_text,
    read_documents,
    text_column,
    text_files,
    text_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast

BATCH_DOCUMENTS = 64
"""Documents tokenized together."""

ROWS_PER_GROUP = 1024
"""Segments held in memory and written together."""

_LONGEST_METADATA = 1000


@dataclass(frozen=True, slots=True)
class Record:
    """A document of a source.

    Attributes:
        id: the row's own ``id``, or its number in the source from 0.
        text: not empty.
        metadata: the row's other plain values as a JSON object; empty where there are none.
    """

    id: str
    text: str
    metadata: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a document.

    Attributes:
        text: not empty; a document's segments in order concatenate to its text.
        document: the document's id.
        segment: its number within the document, from 0.
        tokens: how many of the document's tokens begin in it.
        source: name of the source.
        metadata: the document's, as JSON.
    """

    text: str
    document: str
    segment: int
    tokens: int
    source: str
    metadata: str


def read_records(path: Path, rejects: Rejects, columns: Sequence[str] = TEXTS) -> Iterator[Record]:
    """Yield the documents of a source in order, with their ids and metadata.

    Args:
        path: a file, a folder of files, or an artifact that holds text.
        rejects: takes rows without text.
        columns: names that the column or key of the text may have.

    Raises:
        InputError: a file is empty or damaged, or there is no document at all.
    """
    count = 0
    for file in text_files(path):
        if is_plain_text(file):
            for text in read_documents(file, rejects):
                yield Record(file.stem, text, "")
                count += 1
            continue
        column = text_column(file, columns)
        for number, row in read_rows(file, rejects):
            if is_blank(row.get(column)):
                continue
            try:
                text = text_of(row, column)
            except ValueError as error:
                rejects.add(str(file), number, str(error))
            else:
                rejects.accept()
                identifier = row.get("id")
                named = (
                    isinstance(identifier, str | int)
                    and not isinstance(identifier, bool)
                    and identifier != ""
                )
                yield Record(str(identifier) if named else str(count), text, _metadata(row, column))
                count += 1
    if not count:
        raise InputError("no documents here", where=str(path))


def _metadata(row: Mapping[str, Any], column: str) -> str:
    """The row's other plain values; long texts, nested values and what JSON cannot represent are left out."""
    metadata: dict[str, Any] = {}
    for name, value in row.items():
        if name in (column, "id"):
            continue
        short = isinstance(value, str) and len(value) <= _LONGEST_METADATA
        if short or (isinstance(value, int | float) and math.isfinite(value)):
            metadata[name] = value
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""


def cut(text: str, offsets: Sequence[tuple[int, int]], length: int) -> list[tuple[str, int]]:
    """Cut a text before every ``length``-th token.

    Where a boundary falls within a character whose bytes are several tokens, the character goes to the
    later piece; a boundary that would leave a piece empty is dropped.

    Args:
        text: not empty.
        offsets: where each token's characters begin and end, as a fast tokenizer gives them.
        length: tokens of a piece.

    Returns:
        Pieces with their numbers of tokens; the pieces concatenate to the text, the numbers add up.
    """
    pieces: list[tuple[str, int]] = []
    begin = first = 0
    for token in range(length, len(offsets), length):
        at = min(offsets[token][0], len(text))
        if begin < at < len(text):
            pieces.append((text[begin:at], token - first))
            begin, first = at, token
    return [*pieces, (text[begin:], len(offsets) - first)]


def segments_of(
    records: Iterator[Record], source: str, tokenizer: PreTrainedTokenizerFast, length: int
) -> Iterator[Segment]:
    """Cut the documents of a source into segments of ``length`` tokens.

    Args:
        records: the documents.
        source: name of the source.
        tokenizer: a fast tokenizer, whose tokens are counted; no special token is added.
        length: tokens of a segment; a document's last one may be shorter.
    """
    encoder = document_encoder(tokenizer)
    while batch := list(itertools.islice(records, BATCH_DOCUMENTS)):
        encodings = encoder.encode_batch([record.text for record in batch])
        for record, encoding in zip(batch, encodings, strict=True):
            for number, (text, tokens) in enumerate(cut(record.text, encoding.offsets, length)):
                yield Segment(text, record.id, number, tokens, source, record.metadata)


def segment_schema() -> pa.Schema:
    """Columns of a file of segments that carry no labels yet."""
    import pyarrow as pa

    return pa.schema(
        [
            ("text", pa.string()),
            ("document", pa.string()),
            ("segment", pa.int32()),
            ("tokens", pa.int32()),
            ("source", pa.string()),
            ("metadata", pa.string()),
        ]
    )


class SegmentStore:
    """The segments of several sources on disk, a parquet file each.

    Args:
        folder: where the files are.
        sources: how many there are.
    """

    def __init__(self, folder: Path, sources: int) -> None:
        self._folder, self._sources = folder, sources

    def _file(self, source: int) -> Path:
        return self._folder / f"segments-{source}.parquet"

    def write(self, source: int, segments: Iterator[Segment]) -> int:
        """Write a source's segments, a row each; returns their number."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = segment_schema()
        count = 0
        with pq.ParquetWriter(self._file(source), schema, compression="zstd") as writer:
            while batch := list(itertools.islice(segments, ROWS_PER_GROUP)):
                columns = {name: [getattr(segment, name) for segment in batch] for name in schema.names}
                writer.write_table(pa.table(columns, schema=schema))
                count += len(batch)
        return count

    def batches(self, source: int) -> Iterator[pa.RecordBatch]:
        """Yield a source's segments in order, up to :data:`ROWS_PER_GROUP` at a time."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._file(source)) as file:
            yield from file.iter_batches(batch_size=ROWS_PER_GROUP)

    def lengths(self, source: int) -> NDArray[np.int64]:
        """Tokens of a source's segments in order, int64 ``[segments]``."""
        columns = [batch.column("tokens").to_numpy() for batch in self.batches(source)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *columns]).astype(np.int64)

    def texts(self) -> Iterator[list[str]]:
        """Yield the texts of all segments of all sources in order, a batch at a time."""
        for source in range(self._sources):
            for batch in self.batches(source):
                yield batch.column("text").to_pylist()

    def places(self, numbers: NDArray[np.int64]) -> Iterator[tuple[int, str]]:
        """Yield source number and document id of the segments with these numbers, in ascending order."""
        start = taken = 0
        for source in range(self._sources):
            for batch in self.batches(source):
                stop = int(np.searchsorted(numbers, start + batch.num_rows))
                documents = batch.column("document")
                for number in numbers[taken:stop]:
                    yield source, documents[int(number) - start].as_py()
                start, taken = start + batch.num_rows, stop

    def chosen(self, numbers: NDArray[np.int64]) -> Iterator[str]:
        """Yield the texts of the segments with these numbers, in ascending order, counted over all sources."""
        start = taken = 0
        for batch in self.texts():
            stop = int(np.searchsorted(numbers, start + len(batch)))
            for number in numbers[taken:stop]:
                yield batch[int(number) - start]
            start, taken = start + len(batch), stop
            if taken == len(numbers):
                return
