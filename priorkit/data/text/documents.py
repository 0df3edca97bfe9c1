"""Text sources: documents from rows and from plain text, in files, folders or on the hub."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from priorkit.core.artifact import is_artifact
from priorkit.core.errors import InputError, nearest
from priorkit.core.options.settings import argument
from priorkit.data.columns import TEXTS, find_column, require_column
from priorkit.data.io.formats import row_suffixes
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import FilePart
from priorkit.data.io.rows import PartReader, files_of, read_rows
from priorkit.data.text.concepts import LABELS, with_combinations

TEXT_FILES = ".jsonl, .csv, .tsv (also .gz, .zst), .parquet, .arrow, .json, .txt"


def text_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that text is read from."""
    return (*row_suffixes(), ".txt")


def is_plain_text(file: Path) -> bool:
    """Whether a file is a ``.txt``, which is one document."""
    return file.name.lower().endswith(".txt")


def sources_argument() -> Any:
    """Declare the text sources of a step."""
    return argument(
        f"Text sources: {TEXT_FILES}, a folder of them, or a hub dataset id.",
        accepts=("world", "text"),
        metavar="NAME=SOURCE",
        hub="dataset",
    )


def text_files(path: Path) -> list[Path]:
    """The files of a text source; of an artifact that holds text, only those in its folder ``text``.

    Files below that folder are left out: a world keeps its held-out text there.

    Raises:
        InputError: nothing of a known type is there.
    """
    inner = path / "text"
    if is_artifact(path) and inner.is_dir():
        return [file for file in files_of(inner, text_suffixes()) if file.parent == inner]
    return files_of(path, text_suffixes())


_HEAD_BYTES = 4096
"""Of a plain text file that a plan reads."""


def check_text_source(path: Path, columns: Sequence[str] = TEXTS) -> list[Path]:
    """The files of a text source, their type and column checked from headers, and that there is a document.

    Args:
        path: a file or a folder of files.
        columns: names that the column or key of the text may have.

    Raises:
        InputError: no readable file, an empty one, no such column, or no document.
    """
    files = text_files(path)
    for file in files:
        if file.stat().st_size == 0:
            raise InputError("the file is empty", where=str(file))
        if is_plain_text(file):
            _check_beginning(file)
        else:
            require_column(file, "text", columns)
    # Up to the first document.
    next(read_documents(path, Rejects(1.0), columns), None)
    return files


def text_column(file: Path, columns: Sequence[str]) -> str:
    """The column or key of the text in a file: the first of several that it has, or else the first of all."""
    if len(columns) == 1:
        return columns[0]
    status = file.stat()
    return _text_column(file, tuple(columns), status.st_mtime_ns, status.st_size)


@cache
def _text_column(file: Path, columns: tuple[str, ...], changed: int, size: int) -> str:
    """As :func:`text_column`, once for all parts of a file."""
    return find_column(file, columns)[0] or columns[0]


def read_documents(path: Path, rejects: Rejects, columns: Sequence[str] = TEXTS) -> Iterator[str]:
    """Yield the documents of a source in order; a ``.txt`` file is one document.

    Args:
        path: a file or a folder of files.
        rejects: takes rows without text.
        columns: names that the column or key of the text may have.

    Raises:
        InputError: a file is empty or damaged.
    """
    before = rejects.total
    for file in text_files(path):
        if is_plain_text(file):
            yield _plain_text(file, rejects)
            continue
        column = text_column(file, columns)
        for number, row in read_rows(file, rejects, [column]):
            if is_blank(row.get(column)):
                continue
            try:
                text = text_of(row, column)
            except ValueError as error:
                rejects.add(str(file), number, str(error))
                continue
            rejects.accept()
            yield text
    if rejects.total == before:
        raise InputError("no documents here", where=str(path))


def is_blank(value: Any) -> bool:
    """Whether a row's text is blank: an empty document, as in WikiText's tables, which is skipped and not broken."""
    return isinstance(value, str) and not value.strip()


def text_of(row: Mapping[str, Any], column: str) -> str:
    """A row's text.

    Raises:
        ValueError: there is none.
    """
    value = row.get(column)
    if isinstance(value, str) and value:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError(f"'{column}' holds a lone surrogate") from None
        return value
    if column not in row:
        raise ValueError(f"no key '{column}'; the keys are {', '.join(row)} (--text-column)")
    raise ValueError(f"'{column}' is not text")


LABEL_COLUMN = "labels"
"""Column of a source that label-corpus made: the list of a segment's labels."""


def label_bits(value: Any) -> int:
    """A row's labels as bits in the order of ``LABELS``, the combinations that they imply included.

    Raises:
        ValueError: it is no list of known labels.
    """
    if not isinstance(value, list):
        raise ValueError(f"'{LABEL_COLUMN}' is not a list of labels")
    for name in value:
        if name not in LABELS:
            raise ValueError(f"unknown label {name!r} ({nearest(str(name), LABELS)})")
    names = {*value, *with_combinations(value)}
    return sum(1 << index for index, name in enumerate(LABELS) if name in names)


class DocumentReader:
    """Reads the documents of a part of a file, in order.

    Args:
        part: which part.
        rejects: takes rows without text, or without labels where those are asked for.
        columns: names that the column or key of the text may have.
        labelled: whether to read labels too.

    Attributes:
        lines: see :class:`priorkit.data.io.rows.PartReader`.
    """

    def __init__(
        self, part: FilePart, rejects: Rejects, columns: Sequence[str], labelled: bool = False
    ) -> None:
        self._part, self._rejects, self._columns, self._labelled = part, rejects, columns, labelled
        self.lines = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield ``(text, label bits)``; the bits are 0 where labels are not asked for."""
        file = self._part.path
        if is_plain_text(file):
            yield _plain_text(file, self._rejects), 0
            return
        column = text_column(file, self._columns)
        columns = [column, LABEL_COLUMN] if self._labelled else [column]
        reader = PartReader(self._part, self._rejects, columns)
        for number, row in reader:
            if is_blank(row.get(column)):
                continue
            try:
                text = text_of(row, column)
                bits = label_bits(row.get(LABEL_COLUMN)) if self._labelled else 0
            except ValueError as error:
                self._rejects.add(str(file), number, str(error))
                continue
            self._rejects.accept()
            yield text, bits
        self.lines = reader.lines


MAX_PLAIN_BYTES = 16 << 20
"""A plain text file is one document, held and tokenized at once: 32 MB that became 18 M tokens took 5.1 GB in
the tokenizers library. A cut would change its tokens: pre-tokenisers look ahead over white space,
and models without them merge across paragraphs."""


def check_plain_text(file: Path) -> None:
    """Refuse a plain text file that is too large for one document.

    Raises:
        InputError: naming the size and what to do.
    """
    size = file.stat().st_size
    if size > MAX_PLAIN_BYTES:
        raise InputError(
            f"{size / (1 << 20):,.0f} MiB in one document; a .txt may have {MAX_PLAIN_BYTES >> 20} MiB",
            where=str(file),
            hint="split it into a folder of files, one document each (split -C 8m --additional-suffix=.txt), or "
            "write its documents as JSON Lines",
        )


def _check_beginning(file: Path) -> None:
    """Refuse a plain text file that is too large, not UTF-8 from its first bytes on, or blank.

    Raises:
        InputError: as :func:`read_documents`.
    """
    check_plain_text(file)
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    try:
        blank = not codecs.getincrementaldecoder("utf-8-sig")().decode(head).strip()
    except UnicodeDecodeError:
        blank = True
    if blank:
        _plain_text(file, Rejects(1.0))


def _plain_text(file: Path, rejects: Rejects) -> str:
    check_plain_text(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(file)) from None
    if not text.strip():
        raise InputError("the file is empty", where=str(file))
    rejects.accept()
    return text
