"""Rows of the files users bring: JSON Lines (plain, gzip, zstd), JSON arrays and parquet."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from priorkit.core.errors import EnvironmentProblem, InputError
from priorkit.data.rejects import Rejects

TABLE_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")

_MAX_LINE_BYTES = 256 << 20


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
        EnvironmentProblem: zstd files without the package that reads them.
    """
    name = path.name.lower()
    if name.endswith(".gz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    if name.endswith(".zst"):
        try:
            return io.BufferedReader(_ZstdFile(path))
        except ImportError:
            raise EnvironmentProblem(
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
    number = 0
    try:
        with open_lines(path) as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                number += 1
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
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"truncated or damaged: {error}", where=f"{path}:{number + 1}") from None


def _json_rows(path: Path, rejects: Rejects) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"not valid JSON: {error}", where=str(path)) from None
    if not isinstance(rows, list):
        raise InputError(f"expected a JSON array of objects, got {type(rows).__name__}", where=str(path))
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            rejects.add(str(path), number, f"expected a JSON object, got {type(row).__name__}")


def _parquet_rows(path: Path, columns: list[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        number = 0
        for batch in file.iter_batches(batch_size=1024, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"not a readable parquet file: {error}", where=str(path)) from None


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
