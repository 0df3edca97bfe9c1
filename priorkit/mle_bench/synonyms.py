"""Synonyms: groups from a file, and pairs judged by a model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from priorkit.core.errors import InputError, Problems
from priorkit.core.json_text import parse_json
from priorkit.data.images import entities

Pair: TypeAlias = tuple[str, str]

fold = lru_cache(maxsize=1 << 16)(entities.folded_name)
"""Cached: the few names of a data set are compared with each other for every image."""


class Synonyms:
    """Which names mean the same.

    Args:
        groups: names that are synonyms of one another; case and Unicode form do not matter. A name may be in
            several groups, one per sense; groups do not join by it.
    """

    def __init__(self, groups: Iterable[Sequence[str]] = ()) -> None:
        self._groups: dict[str, set[int]] = {}
        self._verdicts: dict[Pair, bool] = {}
        self.count = 0
        for number, group in enumerate(groups):
            self.count += 1
            for name in group:
                self._groups.setdefault(fold(name), set()).add(number)

    def same(self, first: str, other: str) -> bool:
        """Whether an image with one can be said to show the other; unjudged pairs are not synonyms."""
        return self._certain(fold(first), fold(other)) or self._verdicts.get(pair_of(first, other), False)

    def settled(self, first: str, other: str) -> bool:
        """Whether the groups make them the same, or they have been judged."""
        return self._certain(fold(first), fold(other)) or pair_of(first, other) in self._verdicts

    def add(self, verdicts: Mapping[Pair, bool]) -> None:
        """Add verdicts on pairs made by :func:`pair_of`."""
        self._verdicts.update(verdicts)

    def known(self, names: Iterable[str]) -> int:
        """How many of these names are in a group."""
        return sum(fold(name) in self._groups for name in names)

    def _certain(self, one: str, two: str) -> bool:
        """Equal, one the other's head noun (``table`` and ``coffee table``), or in a group together."""
        if one == two or one.endswith(f" {two}") or two.endswith(f" {one}"):
            return True
        return bool(self._groups.get(one, set()) & self._groups.get(two, set()))


def pair_of(first: str, other: str) -> Pair:
    """Two names in their folded forms, the smaller first."""
    one, two = sorted((fold(first), fold(other)))
    return one, two


def read_synonyms(path: Path) -> Synonyms:
    """Read groups of synonyms.

    A text file has one group per line, separated by tabs, or by commas where the line has no tab; blank lines
    and lines that begin with ``#`` are ignored. A ``.json`` file is a list of lists of names. Underscores
    mean spaces, as in WordNet.

    Raises:
        InputError: the file cannot be read or holds no group, a group has a single name, or the same name
            twice, ignoring case and Unicode form; all such groups are listed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    rows = _of_json(text, path) if path.suffix.lower() == ".json" else _of_lines(text, path)
    problems = Problems(InputError)
    groups = [_group(names, where, problems) for where, names in rows]
    if not groups:
        problems.add("the file holds no group of synonyms", where=str(path))
    problems.raise_if_any()
    return Synonyms(groups)


def _of_lines(text: str, path: Path) -> list[tuple[str, list[Any]]]:
    return [
        (f"{path}:{number}", list(line.split("\t" if "\t" in line else ",")))
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip() and not line.startswith("#")
    ]


def _of_json(text: str, path: Path) -> list[tuple[str, list[Any]]]:
    try:
        document = parse_json(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from None
    if not isinstance(document, list) or not all(isinstance(group, list) for group in document):
        raise InputError("expected a list of groups, each a list of names", where=str(path))
    return [(f"{path} group {number}", group) for number, group in enumerate(document, start=1)]


def _group(values: Sequence[Any], where: str, problems: Problems) -> list[str]:
    if not all(isinstance(value, str) for value in values):
        problems.add("a name must be text", where=where)
        return []
    names = [" ".join(value.replace("_", " ").split()) for value in values]
    names = [name for name in names if name]
    first: dict[str, str] = {}
    for name in names:
        if fold(name) in first:
            problems.add(f"'{first[fold(name)]}' and '{name}' are the same name", where=where)
        first.setdefault(fold(name), name)
    if len(names) < 2:
        problems.add(
            f"expected two names or more, got {len(names)}",
            where=where,
            hint="separate names by tabs or commas",
        )
    return names
