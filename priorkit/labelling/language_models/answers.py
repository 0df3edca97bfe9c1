"""Reading the labels that an answer names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_THOUGHTS = re.compile(r"^.*</think>", re.DOTALL)
"""What a reasoning model writes before its answer."""

_SEPARATORS = re.compile(r"[,;\n]|\band\b|&")
_EDGES = re.compile(r"^(?:\W|\d+[.)]|labels?\s*:|answer\s*:)+|\W+$", re.IGNORECASE)
"""Bullets, numbers, quotes, headings and stops around a label."""

_REST = re.compile(r"\s*(?::|\(|\s[-\u2013\u2014]\s).*$")
"""A definition or comment after a label."""

_NEGATION = re.compile(r"\b(?:no|not|nor|neither|without|n't)\W+(?:\w+\W+){0,2}$", re.IGNORECASE)


def parse_labels(answer: str, names: Mapping[str, str], none: Sequence[str]) -> set[str] | None:
    """The labels that an answer gives.

    An answer is a list: its parts, without bullets, numbers and definitions, are compared with the names. Only where
    no part is a name or ``none``, the names that the answer mentions count, except where a negation precedes them.

    Args:
        answer: what the model wrote.
        names: the name in an answer by label.
        none: spellings of an answer without a label.

    Returns:
        Labels; the empty set for an answer that says none; None where the answer says neither.
    """
    text = _THOUGHTS.sub("", answer).strip()
    meanings: dict[str, str] = {_plain(name): label for label, name in names.items()}
    meanings |= {_plain(label): label for label in names}
    empty = {_plain(spelling) for spelling in none}
    listed: set[str] = set()
    says_none = False
    for part in _SEPARATORS.split(text):
        word = _plain(_REST.sub("", _EDGES.sub("", part.strip())))
        if word in meanings:
            listed.add(meanings[word])
        elif word in empty:
            says_none = True
    if listed or says_none:
        return listed
    return _mentioned(_plain(text), meanings, empty)


def _mentioned(text: str, meanings: Mapping[str, str], empty: set[str]) -> set[str] | None:
    """The labels whose names a text contains, longer names first; None where there are none and no ``none``."""
    found: set[str] = set()
    for name in sorted(meanings, key=len, reverse=True):
        pattern = re.compile(rf"\b{re.escape(name)}s?\b")
        found.update(
            meanings[name] for match in pattern.finditer(text) if not _NEGATION.search(text[: match.start()])
        )
        text = pattern.sub(" | ", text)
    says_none = any(re.search(rf"\b{re.escape(word)}\b", text) for word in empty)
    return found if found or says_none else None


def _plain(text: str) -> str:
    """Lower case, with underscores, hyphens and runs of white space as one blank."""
    return re.sub(r"[\s_*`-]+", " ", text).strip().casefold()
