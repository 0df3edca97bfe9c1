"""CSV and TSV with a header, quoted as in RFC 4180, plain or compressed with gzip or zstd."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError
from priorkit.data.io.json_lines import open_lines
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import NumberedRow, RowFormat

SEPARATORS = (",", "\t", ";")
"""What a ``.csv`` may be separated by: open_clip and pandas write tabs there, spreadsheets semicolons."""

MAX_CELL_CHARACTERS = 256 << 20

csv.field_size_limit(MAX_CELL_CHARACTERS)


class Delimited(RowFormat):
    """A table as text, with a header; all cells are text, an empty cell the empty text.

    A row is numbered by the line that it begins on.
    """

    secondary = True
    has_schema = True
    suffixes = tuple(kind + packed for kind in (".csv", ".tsv") for packed in ("", ".gz", ".zst"))

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        table = _open(path)
        with table.stream:
            while True:
                begin = table.reader.line_num + 1
                try:
                    cells = next(table.reader, None)
                except csv.Error as error:
                    if table.reader.line_num > begin or "unexpected end" in str(error):
                        raise _unclosed(path, begin) from None
                    rejects.add(str(path), begin, f"not valid CSV: {error}")
                    continue
                except OSError as error:
                    raise _unreadable(path, begin, error) from None
                if cells is None:
                    return
                if not cells:
                    continue
                fault = _fault(cells, table.header)
                if fault:
                    rejects.add(str(path), begin, fault)
                    continue
                named = zip(table.header, cells, strict=True)
                yield begin, {name: cell for name, cell in named if name}

    def column_names(self, path: Path) -> list[str]:
        table = _open(path)
        table.stream.close()
        return [name for name in table.header if name]


@dataclass(frozen=True)
class _Table:
    """An open file whose header has been read.

    Attributes:
        stream: its text.
        reader: of its rows.
        header: the columns, empty where one has no name, such as the index that pandas writes.
    """

    stream: io.TextIOWrapper
    reader: Any
    header: list[str]


def _open(path: Path) -> _Table:
    # What is no UTF-8 becomes lone surrogates, so that a row with it can be rejected and the next one read.
    stream = io.TextIOWrapper(open_lines(path), encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = stream.readline()
        if _damaged(first) or "\0" in first:
            raise InputError("not UTF-8 text", where=str(path), hint="save it as UTF-8")
        reader = csv.reader(_after(first, stream), delimiter=_separator(path, first), strict=True)
        no_names: list[str] = []
        header = [name.strip() for name in next(reader, no_names)]
        if not any(header):
            raise InputError("the first line names no columns", where=str(path))
    except csv.Error as error:
        stream.close()
        raise InputError(f"its header is not valid CSV: {error}", where=str(path)) from None
    except OSError as error:
        stream.close()
        raise _unreadable(path, 1, error) from None
    except InputError:
        stream.close()
        raise
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        stream.close()
        raise InputError(f"two columns are called '{twice[0]}'", where=str(path), hint="rename one of them")
    return _Table(stream, reader, header)


def _after(first: str, stream: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from stream


def _separator(path: Path, header: str) -> str:
    """The separator of a file: a tab in a ``.tsv``, in a ``.csv`` the one that its header has most of."""
    if ".tsv" in path.name.lower():
        return "\t"
    bare = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=bare.count)


def _fault(cells: list[str], header: list[str]) -> str:
    """Why a row cannot be used; empty where it can."""
    if len(cells) != len(header):
        return f"{len(cells)} cells where the header has {len(header)}"
    damaged = next((name for name, cell in zip(header, cells, strict=True) if _damaged(cell)), None)
    return "" if damaged is None else f"not UTF-8 text in '{damaged}'"


def _damaged(text: str) -> bool:
    """Whether a text has bytes that are no UTF-8."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _unclosed(path: Path, line: int) -> InputError:
    return InputError(
        "a quotation mark opens a cell and none closes it",
        where=f"{path}:{line}",
        hint='a cell with quotation marks stands in quotation marks, those in it doubled: "a ""b"" c"',
    )


def _unreadable(path: Path, line: int, error: OSError) -> Exception:
    """The disk's error as it is; the decompressor's, which has no number, as one of the file."""
    if error.errno is not None:
        return error
    return InputError(f"truncated or damaged: {error}", where=f"{path}:{line}")
