"""JSON that users bring: every way in which it cannot be read is one error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast


class UnusableJsonError(json.JSONDecodeError):
    """Valid JSON without a single meaning or that is not text: a key twice in one object, a lone surrogate."""


def parse_json(text: str | bytes, *, unique_keys: bool = False) -> Any:
    """As ``json.loads``, which raises other errors for deep nesting and for integers of thousands of digits.

    Args:
        text: the JSON.
        unique_keys: whether a key that an object holds twice is an error; else the last one counts, as in
            ``json.loads`` and transformers.

    Raises:
        UnusableJsonError: a text holds a lone surrogate, half of a character, which no file or tokenizer takes;
            or a key is there twice.
        json.JSONDecodeError: it is not valid JSON, or exceeds what Python reads.
        UnicodeDecodeError: bytes that are not UTF-8 text.
    """
    twice: list[str] = []
    try:
        value = json.loads(text, object_pairs_hook=_noting(twice) if unique_keys else None)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", "", 0) from None
    except ValueError:
        raise json.JSONDecodeError("an integer has too many digits", "", 0) from None
    if reason := _unusable(text, 0, len(text), value, twice):
        raise UnusableJsonError(reason, "", 0)
    return value


def decode_row(text: str, position: int) -> tuple[Any, int, str]:
    """The row that begins at a position of a text.

    Returns:
        The value, where it ends, and why it cannot be used, as :class:`UnusableJsonError`; empty where it can.

    Raises:
        ValueError: it is not valid JSON, ends after the text, or an integer has too many digits.
        RecursionError: it is nested too deeply.
    """
    twice: list[str] = []
    value, end = json.JSONDecoder(object_pairs_hook=_noting(twice)).raw_decode(text, position)
    return value, end, _unusable(text, position, end, value, twice)


def _noting(twice: list[str]) -> Any:
    """A hook of the decoder that notes the keys which an object holds twice."""

    def build(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(key for key in made if keys.count(key) > 1)
        return made

    return build


def _unusable(text: str | bytes, start: int, stop: int, value: Any, twice: Sequence[str]) -> str:
    if twice:
        return f"the key {twice[0]!a} is there twice in one object"
    if isinstance(text, str):
        # UTF-8 has no surrogates, so that they can only be escapes, which are rare.
        suspect = any(text.find(e, start, stop) >= 0 for e in ("\\ud", "\\uD"))
    else:
        suspect = b"\\ud" in text or b"\\uD" in text
    found = lone_surrogate(value) if suspect else None
    return "" if found is None else f"{found!a} holds a lone surrogate, half of a character"


def lone_surrogate(value: Any) -> str | None:
    """The first text of a JSON value, keys included, that holds a lone surrogate; None where there is none."""
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            try:
                item.encode()
            except UnicodeEncodeError as error:
                return item[max(0, error.start - 20) : error.end + 20]
        elif isinstance(item, dict):
            table = cast("dict[str, Any]", item)
            stack += [*reversed(table.values()), *reversed(table)]
        elif isinstance(item, list | tuple):
            stack += reversed(cast("Sequence[Any]", item))
    return None
