"""JSON arrays of any size, an element at a time: what is held is a piece of the file and one element."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from priorkit.core.errors import InputError

PIECE_BYTES = 1 << 20
"""Bytes read at one time; more where an element does not end within them."""

MAX_ELEMENT_CHARACTERS = 256 << 20

_SPACE = re.compile(r"[ \t\n\r]*")
_NAMES = {"{": "dict", '"': "str", "t": "bool", "f": "bool", "n": "NoneType"}

_AFTER_ELEMENT = " \t\n\r,]"

_LONGEST_WORD = 16
"""Within so many characters of the end an error may be a word or escape of which the rest is not read yet."""


class _Text:
    """A file as text that grows at its end and is forgotten at its beginning.

    Attributes:
        held: the part at hand.
        at: where in it the next thing begins.
        ended: whether nothing follows it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream = path.open("rb")
        # Some editors begin UTF-8 with a byte order mark.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._lines = 0
        self.held, self.at, self.ended = "", 0, False

    def grow(self) -> None:
        """Read on, at least as much as is held."""
        self._lines += self.held.count("\n", 0, self.at)
        self.held, self.at = self.held[self.at :], 0
        content = self._stream.read(max(PIECE_BYTES, len(self.held)))
        self.ended = not content
        try:
            self.held += self._decoder.decode(content, final=self.ended)
        except UnicodeDecodeError as error:
            raise InputError(
                f"not valid JSON: not UTF-8 text: {error.reason}", where=str(self._path)
            ) from None

    def look(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self.at = _SPACE.match(self.held, self.at).end()  # pyright: ignore[reportOptionalMemberAccess]
            if self.at < len(self.held) or self.ended:
                return self.held[self.at : self.at + 1]
            self.grow()

    def line(self, position: int) -> int:
        """The number of the line, from 1, of a place in the part at hand."""
        return self._lines + self.held.count("\n", 0, position) + 1

    def close(self) -> None:
        self._stream.close()


def array_elements(path: Path) -> Iterator[Any]:
    """Yield the elements of a file that holds one JSON array.

    Raises:
        InputError: it is no JSON, or no array; elements before the fault are yielded first.
    """
    text = _Text(path)
    try:
        yield from _elements(text, path)
    finally:
        text.close()


def _elements(text: _Text, path: Path) -> Iterator[Any]:
    first = text.look()
    if first != "[":
        _refuse_other(text, first, path)
    text.at += 1
    number = 0
    if text.look() == "]":
        text.at += 1
    else:
        while True:
            number += 1
            yield _element(text, number, path)
            sign = text.look()
            if sign not in (",", "]"):
                raise _broken(text, text.at, f"in element {number}", "Expecting ',' delimiter", path)
            text.at += 1
            if sign == "]":
                break
            text.look()
    if text.look():
        raise _broken(text, text.at, "at the end", "Extra data", path)


def _element(text: _Text, number: int, path: Path) -> Any:
    """The element that begins at hand; more is read until it ends there."""
    decoder = json.JSONDecoder()
    while True:
        try:
            value, end = decoder.raw_decode(text.held, text.at)
        except RecursionError as error:
            raise _broken(text, text.at, f"in element {number}", str(error), path) from None
        except json.JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated") or error.pos > len(text.held) - _LONGEST_WORD
            if text.ended or not unfinished:
                raise _broken(text, error.pos, f"in element {number}", error.msg, path) from None
        else:
            # A number may go on behind the part: of 0.5 the part may hold 0 or 0. alone.
            whole = text.held[end : end + 1] in _AFTER_ELEMENT and end < len(text.held)
            if whole or text.ended or end < len(text.held) - _LONGEST_WORD:
                text.at = end
                return value
        if len(text.held) - text.at > MAX_ELEMENT_CHARACTERS:
            raise InputError(
                f"element {number} has more than {MAX_ELEMENT_CHARACTERS:,} characters", where=str(path)
            )
        text.grow()


def _broken(text: _Text, position: int, what: str, reason: str, path: Path) -> InputError:
    return InputError(f"not valid JSON {what}, line {text.line(position)}: {reason}", where=str(path))


def _refuse_other(text: _Text, first: str, path: Path) -> None:
    """A file that begins with anything but an array."""
    name = _NAMES.get(first) or ("number" if first in "-0123456789" and first else "")
    if not name:
        raise _broken(text, text.at, "at the beginning", "Expecting value", path)
    hint = "name it .jsonl if it holds a row per line" if name == "dict" else ""
    raise InputError(f"expected a JSON array of objects, got {name}", where=str(path), hint=hint)
