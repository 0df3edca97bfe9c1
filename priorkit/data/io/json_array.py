"""JSON arrays of any size, read element by element: memory holds a piece of the file and one element."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.core.json_text import UnusableJsonError, decode_row, parse_json
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.row_format import NumberedRow, RowFormat, json_type

PIECE_BYTES = 1 << 20
"""Bytes read at a time; more where an element does not end within them."""

MAX_ELEMENT_CHARACTERS = 256 << 20

_SPACE = re.compile(r"[ \t\n\r]*")
_TYPE_NAMES = {"{": "one object", '"': "a text", "t": "true", "f": "false", "n": "null"}

_AFTER_ELEMENT = " \t\n\r,]:}"

_LONGEST_WORD = 16
"""An error within so many characters of the buffer's end may be a word or escape that is not read completely."""


class JsonArray(RowFormat):
    """One JSON array of objects; a file of it is one part."""

    suffixes = (".json",)
    ambiguous = True

    def may_hold_rows(self, path: Path) -> bool:
        with path.open("rb") as stream:
            beginning = stream.read(PIECE_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
        return not beginning.startswith(b"{") or _is_lines(beginning)

    def read(self, path: Path, rejects: Rejects, columns: list[str] | None) -> Iterator[NumberedRow]:
        for number, row in enumerate(array_elements(path), start=1):
            if isinstance(row, UnusableJsonError):
                rejects.add(str(path), number, row.msg)
            elif isinstance(row, dict):
                yield number, cast("dict[str, Any]", row)
            else:
                rejects.add(str(path), number, f"expected a JSON object, got {json_type(row)}")


class _Buffer:
    """A sliding piece of a text file.

    Attributes:
        text: the piece.
        position: in the piece, where the next value or sign begins.
        ended: whether the file is read to its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb")
        # Some editors begin UTF-8 with a byte order mark.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._lines_before = 0
        self.text, self.position, self.ended = "", 0, False

    def read_more(self) -> None:
        """Drop what was read and append at least as much as is left."""
        self._lines_before += self.text.count("\n", 0, self.position)
        self.text, self.position = self.text[self.position :], 0
        content = self._stream.read(max(PIECE_BYTES, len(self.text)))
        self.ended = not content
        try:
            self.text += self._decoder.decode(content, final=self.ended)
        except UnicodeDecodeError as error:
            raise InputError(
                f"not valid JSON: not UTF-8 text: {error.reason}", where=str(self._path)
            ) from None

    def next_character(self) -> str:
        """Skip white space; the character at the new position, empty at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.position)
            self.position = space.end() if space else self.position
            if self.position < len(self.text) or self.ended:
                return self.text[self.position : self.position + 1]
            self.read_more()

    def line(self, position: int) -> int:
        """The number of the line, from 1, of a position in the piece."""
        return self._lines_before + self.text.count("\n", 0, position) + 1

    def error(self, position: int, context: str, reason: str) -> InputError:
        """The error that the file is not valid JSON at a position in the piece."""
        return InputError(
            f"not valid JSON {context}, line {self.line(position)}: {reason}", where=str(self._path)
        )

    def close(self) -> None:
        self._stream.close()


def array_elements(path: Path) -> Iterator[object]:
    """Yield the elements of a file that holds one JSON array; for one that cannot be used, the error that says why.

    Raises:
        InputError: it is not JSON or not an array; elements before the fault are yielded first.
    """
    buffer = _Buffer(path)
    try:
        yield from _elements(buffer, path)
        if buffer.next_character():
            raise buffer.error(buffer.position, "at the end", "Extra data")
    finally:
        buffer.close()


def object_elements(path: Path, keys: Collection[str]) -> Iterator[tuple[str, object]]:
    """Yield key and element of the arrays under these keys of a file that holds one JSON object, in the file's order.

    Values of other keys are skipped; of those that are arrays, memory holds one element too.

    Raises:
        InputError: it is not JSON or not an object, or one of the values is no array.
    """
    buffer = _Buffer(path)
    try:
        yield from _of_object(buffer, path, keys)
    finally:
        buffer.close()


def _of_object(buffer: _Buffer, path: Path, keys: Collection[str]) -> Iterator[tuple[str, object]]:
    if buffer.next_character() != "{":
        raise InputError("expected one JSON object", where=str(path))
    buffer.position += 1
    while (sign := buffer.next_character()) != "}":
        if sign == ",":
            buffer.position += 1
            buffer.next_character()
        key = _element(buffer, 1, path)
        if not isinstance(key, str) or buffer.next_character() != ":":
            raise buffer.error(buffer.position, "in the object", "Expecting a key and ':'")
        buffer.position += 1
        if buffer.next_character() == "[":
            for element in _elements(buffer, path):
                if key in keys:
                    yield key, element
        elif key in keys:
            raise InputError(f"'{key}' is no array", where=str(path))
        else:
            _element(buffer, 1, path)
        if buffer.next_character() not in (",", "}"):
            raise buffer.error(buffer.position, f"after '{key}'", "Expecting ',' delimiter")


def _elements(buffer: _Buffer, path: Path) -> Iterator[object]:
    """The elements of the array at the buffer's position, which is then behind it."""
    first = buffer.next_character()
    if first != "[":
        raise _not_an_array(buffer, first, path)
    buffer.position += 1
    number = 0
    if buffer.next_character() == "]":
        buffer.position += 1
    else:
        while True:
            number += 1
            yield _element(buffer, number, path)
            sign = buffer.next_character()
            if sign not in (",", "]"):
                raise buffer.error(buffer.position, f"in element {number}", "Expecting ',' delimiter")
            buffer.position += 1
            if sign == "]":
                break
            buffer.next_character()


def _element(buffer: _Buffer, number: int, path: Path) -> object:
    """The element at the buffer's position; more is read until it ends there."""
    while True:
        try:
            value, end, fault = decode_row(buffer.text, buffer.position)
        except RecursionError:
            raise buffer.error(buffer.position, f"in element {number}", "nested too deeply") from None
        except ValueError as error:
            if not isinstance(error, json.JSONDecodeError):
                what = "an integer has too many digits"
                raise buffer.error(buffer.position, f"in element {number}", what) from None
            incomplete = error.msg.startswith("Unterminated") or error.pos > len(buffer.text) - _LONGEST_WORD
            if buffer.ended or not incomplete:
                raise buffer.error(error.pos, f"in element {number}", error.msg) from None
        else:
            # A number may continue after the piece: of 0.5 the piece may hold only 0 or 0.
            complete = end < len(buffer.text) and buffer.text[end] in _AFTER_ELEMENT
            if complete or buffer.ended or end < len(buffer.text) - _LONGEST_WORD:
                buffer.position = end
                return UnusableJsonError(fault, "", 0) if fault else cast("object", value)
        if len(buffer.text) - buffer.position > MAX_ELEMENT_CHARACTERS:
            raise InputError(
                f"element {number} has more than {MAX_ELEMENT_CHARACTERS:,} characters", where=str(path)
            )
        buffer.read_more()


def _not_an_array(buffer: _Buffer, first: str, path: Path) -> InputError:
    name = _TYPE_NAMES.get(first) or ("a number" if first in "-0123456789" and first else "")
    if not name:
        return buffer.error(buffer.position, "at the beginning", "Expecting value")
    hint = ""
    if first == "{":
        hint = (
            "name it .jsonl, as it holds a row per line"
            if _is_lines(buffer.text[buffer.position :].encode())
            else "leave it out if it describes the data; else write its rows as an array, or one per line as .jsonl"
        )
    return InputError(f"expected a JSON array of objects, got {name}", where=str(path), hint=hint)


def _is_lines(beginning: bytes) -> bool:
    """Whether the first line is an object, and another one follows."""
    first, _, rest = beginning.partition(b"\n")
    try:
        return isinstance(parse_json(first), dict) and rest.lstrip().startswith(b"{")
    except (ValueError, RecursionError):
        return False
