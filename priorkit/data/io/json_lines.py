"""JSON Lines, plain or compressed with gzip or zstd."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# pyarrow has no type stubs.

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from priorkit.core.errors import InputError
from priorkit.core.json_text import UnusableJsonError, parse_json
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import PART_BYTES, FilePart, NumberedRow, RowFormat, json_type

COMPRESSED_PART_BYTES = 16 << 20
COMPRESSED_PARTS = 8
"""Each part decompresses the file from its start, so a compressed file has at most this many."""

_MAX_LINE_BYTES = 256 << 20
_BUFFER_BYTES = 1 << 20

_BLOCK_BYTES = 1 << 20
"""Decompressed text that goes to the same part."""

_MAX_ZSTD_WINDOW = 128 << 20
"""What zstd decompresses with unless it is allowed more memory."""

_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


def open_lines(path: Path) -> BinaryIO:
    """Open a file of lines as bytes, decompressing by its suffix; several compressed frames are joined.

    Reading a truncated or damaged compressed file raises an OSError without ``errno``.
    """
    compression = _COMPRESSION.get(path.suffix.lower())
    if compression is None:
        return path.open("rb")
    import pyarrow as pa

    stream = pa.input_stream(str(path), compression=compression)
    return io.BufferedReader(cast("Any", stream), _BUFFER_BYTES)


class JsonLines(RowFormat):
    """A JSON object per line; blank lines are skipped."""

    suffixes = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        with open_lines(path) as stream:
            yield from _parsed(_numbered(stream, path), path, rejects)

    def part_count(self, path: Path) -> int:
        size = path.stat().st_size
        if path.suffix.lower() in _COMPRESSION:
            return max(1, min(-(-size // COMPRESSED_PART_BYTES), COMPRESSED_PARTS))
        return max(1, -(-size // PART_BYTES))

    def read_part(
        self, part: FilePart, rejects: Rejects, columns: list[str] | None, count_line: Callable[[], None]
    ) -> Iterator[NumberedRow]:
        compressed = part.path.suffix.lower() in _COMPRESSION
        lines = _lines_of_blocks(part) if compressed else _lines_of_range(part, count_line)
        return _parsed(lines, part.path, rejects)


def _numbered(stream: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1.

    Raises:
        InputError: the file is truncated or does not decompress.
    """
    number = 0
    try:
        while line := stream.readline(_MAX_LINE_BYTES):
            number += 1
            yield number, line
    except OSError as error:
        if error.errno is not None:  # the disk's error, not the decompressor's
            raise
        window = _zstd_window(path)
        if window > _MAX_ZSTD_WINDOW:
            raise InputError(
                f"its zstd window of {window >> 20:,} MiB is above {_MAX_ZSTD_WINDOW >> 20} MiB",
                where=str(path),
                hint=f"compress it again: zstd -dc --long={(window - 1).bit_length()} {path.name} | zstd -o NEW.jsonl.zst",
            ) from None
        raise InputError(f"truncated or damaged: {error}", where=f"{path}:{number + 1}") from None


def _zstd_window(path: Path) -> int:
    """The window that a .zst file's first frame needs, in bytes; 0 where it is no such file (RFC 8878, 3.1.1.1)."""
    with path.open("rb") as stream:
        header = stream.read(18)
    if len(header) < 18 or header[:4] != b"\x28\xb5\x2f\xfd":
        return 0
    descriptor = header[4]
    if (
        descriptor & 0x20
    ):  # a single segment: the window is the content, whose size follows the dictionary's id
        start = 5 + (0, 1, 2, 4)[descriptor & 3]
        size = (1, 2, 4, 8)[descriptor >> 6]
        return int.from_bytes(header[start : start + size], "little") + (256 if size == 2 else 0)
    exponent, mantissa = header[5] >> 3, header[5] & 7
    return (1 << (10 + exponent)) * (8 + mantissa) // 8


def _parsed(lines: Iterable[tuple[int, bytes]], path: Path, rejects: Rejects) -> Iterator[NumberedRow]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row: object = parse_json(line, unique_keys=True)
        except UnicodeDecodeError as error:
            rejects.add(str(path), number, f"not UTF-8 text: {error.reason} at byte {error.start}")
            continue
        except UnusableJsonError as error:
            rejects.add(str(path), number, error.msg)
            continue
        except json.JSONDecodeError as error:
            rejects.add(str(path), number, f"not valid JSON: {error}")
            continue
        if not isinstance(row, dict):
            rejects.add(str(path), number, f"expected a JSON object, got {json_type(row)}")
            continue
        yield number, cast("dict[str, Any]", row)


def _lines_of_range(part: FilePart, count_line: Callable[[], None]) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in the part's range of bytes, numbered from the start of the part."""
    size = part.path.stat().st_size
    start, stop = size * part.index // part.count, size * (part.index + 1) // part.count
    number = 0
    with part.path.open("rb") as stream:
        if start:
            stream.seek(start - 1)
            stream.readline()
        position = stream.tell()
        while position < stop and (line := stream.readline(_MAX_LINE_BYTES)):
            position += len(line)
            number += 1
            count_line()
            yield number, line


def _lines_of_blocks(part: FilePart) -> Iterator[tuple[int, bytes]]:
    """The lines that begin in every ``count``-th block of the decompressed text, numbered from the file's start."""
    position = 0
    with open_lines(part.path) as stream:
        for number, line in _numbered(stream, part.path):
            if position // _BLOCK_BYTES % part.count == part.index:
                yield number, line
            position += len(line)
