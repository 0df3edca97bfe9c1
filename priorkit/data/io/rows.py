"""Rows of the files users bring: JSON Lines (plain, gzip, zstd), JSON arrays and parquet.

A large file can be read in parts by several processes. The parts follow from the file alone, so they are
the same wherever and by however many it is read.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from priorkit.core.errors import InputError, ResourceError
from priorkit.data.io.json_array import array_elements
from priorkit.data.io.rejects import Rejects

TABLE_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")

_MAX_LINE_BYTES = 256 << 20

PART_BYTES = 4 << 20
"""Bytes of a part of a file: small enough that processes end together, large enough to be worth a message."""

COMPRESSED_PART_BYTES = 16 << 20
COMPRESSED_PARTS = 8
"""A compressed file is read whole by each of its parts, so it has at most this many."""

_BLOCK_BYTES = 1 << 20
"""Text in a compressed file that goes to the same part."""


def suffix_of(path: Path, known: tuple[str, ...]) -> str | None:
    """The longest known suffix that a file's name ends with."""
    found = [suffix for suffix in known if path.name.lower().endswith(suffix)]
    return max(found, key=len) if found else None


def files_of(path: Path, known: tuple[str, ...]) -> list[Path]:
    """The files of a source: itself, or all files of known types below a folder, sorted.

    Raises:
        InputError: nothing of a known type is there.
    """
    if path.is_file():
        if suffix_of(path, known) is None:
            raise InputError(f"file type not known; expected {', '.join(known)}", where=str(path))
        return [path]
    found = sorted(item for item in path.rglob("*") if item.is_file() and suffix_of(item, known))
    if not found:
        raise InputError(f"no file of a known type below this folder ({', '.join(known)})", where=str(path))
    return found


class _ZstdFile(io.RawIOBase):
    """Decompresses a zstd file and, unlike the package's own reader, tells where one is cut short."""

    def __init__(self, path: Path) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = self._decompressor.decompressobj()
        self._begun = False
        self._stream = path.open("rb")
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            content = self._stream.read(1 << 16)
            if self._frame.eof:
                content = self._frame.unused_data + content
                self._frame, self._begun = self._decompressor.decompressobj(), False
            if not content and self._begun:
                raise EOFError("the file ends within a frame")
            if not content:
                return 0
            try:
                self._ready, self._begun = self._frame.decompress(content), True
            except self._error as error:
                raise EOFError(str(error)) from None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_lines(path: Path) -> BinaryIO:
    """Open a file of lines as bytes, decompressing by its suffix.

    Raises:
        ResourceError: zstd files without the package that reads them.
    """
    name = path.name.lower()
    if name.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    if name.endswith(".zst"):
        try:
            return io.BufferedReader(_ZstdFile(path))
        except ImportError:
            raise ResourceError(
                "reading .zst needs the package zstandard",
                where=str(path),
                hint="pip install 'priorkit[data]'",
            ) from None
    return path.open("rb")


def read_rows(
    path: Path, rejects: Rejects, columns: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``(row number from 1, row)`` of a table file; broken rows go to ``rejects``.

    Args:
        path: a ``.jsonl`` (also ``.gz``, ``.zst``), ``.json`` (an array of objects) or ``.parquet`` file.
        rejects: takes the rows that do not parse.
        columns: parquet columns to read; all where None.

    Raises:
        InputError: the file is empty, truncated or not of its type.
    """
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path))
    suffix = suffix_of(path, TABLE_SUFFIXES)
    if suffix == ".parquet":
        yield from _parquet_rows(path, columns)
    elif suffix == ".json":
        yield from _json_rows(path, rejects)
    elif suffix:
        yield from _json_lines(path, rejects)
    else:
        raise InputError(f"file type not known; expected {', '.join(TABLE_SUFFIXES)}", where=str(path))


def _json_lines(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_lines(path) as stream:
        yield from _parsed(_numbered(stream, path), path, rejects)


def _numbered(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1.

    Raises:
        InputError: the file ends early, or does not decompress.
    """
    number = 0
    try:
        while line := stream.readline(_MAX_LINE_BYTES):
            number += 1
            yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"truncated or damaged: {error}", where=f"{path}:{number + 1}") from None


def _parsed(
    lines: Iterable[tuple[int, bytes]], path: Path, rejects: Rejects
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UnicodeDecodeError as error:
            rejects.add(str(path), number, f"not UTF-8 text: {error.reason} at byte {error.start}")
            continue
        except (json.JSONDecodeError, RecursionError) as error:
            rejects.add(str(path), number, f"not valid JSON: {error}")
            continue
        if not isinstance(row, dict):
            rejects.add(str(path), number, f"expected a JSON object, got {type(row).__name__}")
            continue
        yield number, row


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file.

    Attributes:
        path: the file.
        index: which part, from 0.
        count: how many parts the file has.
    """

    path: Path
    index: int
    count: int


def parts_of(path: Path) -> list[Part]:
    """The parts that a file is read in: ranges of bytes, of row groups, or of blocks; else the whole."""
    suffix = suffix_of(path, TABLE_SUFFIXES)
    size = path.stat().st_size
    count = 1
    if suffix == ".jsonl":
        count = -(-size // PART_BYTES)
    elif suffix == ".parquet":
        count = min(-(-size // PART_BYTES), _parquet_file(path).metadata.num_row_groups)
    elif suffix in (".jsonl.gz", ".jsonl.zst"):
        count = min(-(-size // COMPRESSED_PART_BYTES), COMPRESSED_PARTS)
    return [Part(path, index, max(1, count)) for index in range(max(1, count))]


class PartReader:
    """Reads the rows of a part of a file.

    Args:
        part: which part.
        rejects: takes the rows that do not parse.
        columns: parquet columns to read; all where None.

    Attributes:
        lines: how many lines the part has, known after reading, where row numbers count from the part's
            beginning (plain JSON Lines); 0 where they count from the file's.
    """

    def __init__(self, part: Part, rejects: Rejects, columns: list[str] | None = None) -> None:
        self._part, self._rejects, self._columns = part, rejects, columns
        self.lines = 0

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        path = self._part.path
        suffix = suffix_of(path, TABLE_SUFFIXES)
        if path.stat().st_size == 0:
            raise InputError("the file is empty", where=str(path))
        if suffix == ".jsonl":
            return _parsed(self._range_of_lines(), path, self._rejects)
        if suffix in (".jsonl.gz", ".jsonl.zst"):
            return _parsed(self._blocks_of_lines(), path, self._rejects)
        if suffix == ".parquet":
            return _parquet_rows(path, self._columns, self._part)
        return read_rows(path, self._rejects, self._columns)

    def _range_of_lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that begin in the part's range of bytes."""
        part = self._part
        size = part.path.stat().st_size
        start, stop = size * part.index // part.count, size * (part.index + 1) // part.count
        with part.path.open("rb") as stream:
            if start:
                stream.seek(start - 1)
                stream.readline()
            position = stream.tell()
            while position < stop and (line := stream.readline(_MAX_LINE_BYTES)):
                position += len(line)
                self.lines += 1
                yield self.lines, line

    def _blocks_of_lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that begin in every ``count``-th block of the text."""
        part = self._part
        position = 0
        with open_lines(part.path) as stream:
            for number, line in _numbered(stream, part.path):
                if position // _BLOCK_BYTES % part.count == part.index:
                    yield number, line
                position += len(line)


def _json_rows(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(array_elements(path), start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.add(str(path), number, f"expected a JSON object, got {type(row).__name__}")


def _parquet_file(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # A buffer makes the reader take a column page by page, where it would load all of a row group.
        return pq.ParquetFile(path, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file: {error}", where=str(path)) from None


def _parquet_rows(
    path: Path, columns: list[str] | None, part: Part | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa

    file = _parquet_file(path)
    try:
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        groups = range(file.metadata.num_row_groups)
        begin, end = 0, len(groups)
        if part is not None:
            begin, end = end * part.index // part.count, end * (part.index + 1) // part.count
        number = sum(file.metadata.row_group(group).num_rows for group in groups[:begin])
        for batch in file.iter_batches(batch_size=256, row_groups=list(groups[begin:end]), columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file: {error}", where=str(path)) from None
    finally:
        file.close()


def column_names(path: Path) -> list[str]:
    """Column names of a parquet file, or the keys of the first row of another table."""
    if suffix_of(path, TABLE_SUFFIXES) == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"not a readable parquet file: {error}", where=str(path)) from None
    for _, row in read_rows(path, Rejects(1.0)):
        return list(row)
    return []
