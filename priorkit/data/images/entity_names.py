"""Names of entities whose folders or labels are ids, such as ImageNet's: ``n01440764`` is a tench."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError, Problems
from priorkit.core.json_text import parse_json
from priorkit.data.columns import NAMES
from priorkit.data.io.formats import format_of, row_suffixes, suffix_of
from priorkit.data.io.rejects import Rejects
from priorkit.data.io.rows import column_names, read_rows

logger = logging.getLogger(__name__)

_SYNSET = re.compile(r"n\d{8}")
"""WordNet's id of a noun, as ImageNet's folders are called."""

_ID_COLUMNS = ("id", "synset", "wnid", "synset_id", "folder", "class_id")
_NAME_COLUMNS = (*NAMES, "names", "words", "lemmas")


@dataclass(frozen=True, slots=True)
class EntityNames:
    """Names by id.

    Attributes:
        by_id: the names.
        synonyms: all synonyms that the file gives an id, where these are several.
        file: where they come from.
    """

    by_id: Mapping[str, str] = field(default_factory=dict[str, str])
    synonyms: Mapping[str, str] = field(default_factory=dict[str, str])
    file: str = ""

    def names_of(self, ids: Iterable[str]) -> dict[str, str]:
        """The name of each id, which is the id itself where the file has none.

        Of synonyms the first is taken, or all of them where two ids share the first: ``maillot`` and
        ``maillot, tank suit``. Warns of ids without a name.

        Raises:
            InputError: no id has a name, or two have the same.
        """
        ids = list(dict.fromkeys(ids))
        if not self.by_id:
            _warn_of_synsets(ids)
            return {identifier: identifier for identifier in ids}
        unnamed = [identifier for identifier in ids if identifier not in self.by_id]
        if ids and len(unnamed) == len(ids):
            raise InputError(
                f"none of the {len(ids)} entities is in the file of their names; the first is '{ids[0]}', "
                f"the file's '{next(iter(self.by_id))}'",
                where=self.file,
            )
        if unnamed:
            logger.warning(
                f"{len(unnamed)} of {len(ids)} entities are not in {self.file}, such as '{unnamed[0]}'; they keep "
                "their names"
            )
        found = {identifier: self.by_id.get(identifier, identifier) for identifier in ids}
        for group in _same(found):
            found.update(
                (identifier, self.synonyms.get(identifier, found[identifier])) for identifier in group
            )
        problems = Problems(InputError)
        for group in _same(found):
            problems.add(
                f"{' and '.join(group)} are all called '{found[group[0]]}'",
                where=self.file,
                hint=f"give each a name of its own, such as '{found[group[0]]} ({group[0]})'",
            )
        problems.raise_if_any()
        return found

    def unnamed(self, names: Sequence[str]) -> int:
        """How many of the entities' final names are not of the file."""
        known = {*self.by_id.values(), *self.synonyms.values()}
        return sum(name not in known for name in names) if known else 0


def _same(found: Mapping[str, str]) -> list[list[str]]:
    """The ids that share a name."""
    groups: dict[str, list[str]] = {}
    for identifier, name in found.items():
        groups.setdefault(name, []).append(identifier)
    return [group for group in groups.values() if len(group) > 1]


def _warn_of_synsets(ids: Sequence[str]) -> None:
    synsets = [identifier for identifier in ids if _SYNSET.fullmatch(identifier)]
    if synsets and 2 * len(synsets) >= len(ids):
        logger.warning(
            f"{len(synsets)} entities have WordNet's ids for names, such as '{synsets[0]}', which no encoder "
            "knows; give their names with --entity-names, such as LOC_synset_mapping.txt"
        )


def read_entity_names(path: Path) -> EntityNames:
    """Read names by id.

    Args:
        path: lines of an id and its name (``n01440764 tench, Tinca tinca``); CSV, TSV or another table with a
            column of ids and one of names; or a JSON object of names by id, as lists too.

    Raises:
        InputError: it is neither, an id comes twice with different names, or has none.
    """
    suffix = suffix_of(path, (".txt", *row_suffixes()))
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=str(path))
    if suffix == ".json":
        rows = _of_json(path)
    elif suffix is None or suffix == ".txt" or _is_without_header(path):
        rows = _of_lines(path)
    else:
        rows = _of_table(path)
    problems = Problems(InputError)
    names: dict[str, str] = {}
    synonyms: dict[str, str] = {}
    for place, identifier, given in rows:
        where = f"{path}:{place}"
        if not identifier or not given:
            problems.add(f"expected an id and its name, got '{identifier or given}'", where=where)
        elif identifier in synonyms and synonyms[identifier] != given:
            problems.add(f"'{identifier}' is there twice", where=where, hint="remove one of them")
        else:
            # ImageNet's names are synonyms; in names of other ids a comma may belong to the name.
            first = given.split(",")[0].strip() if _SYNSET.fullmatch(identifier) else given
            names[identifier], synonyms[identifier] = first or given, given
    problems.raise_if_any()
    if not names:
        raise InputError("the file holds no names", where=str(path))
    return EntityNames(names, synonyms, str(path))


def _of_lines(path: Path) -> Iterator[tuple[int, str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            identifier, *name = re.split(r"[\s,;]+", line.strip(), maxsplit=1)
            yield number, identifier, name[0].strip().strip('"') if name else ""


def _is_without_header(path: Path) -> bool:
    """Whether a table begins with an id instead of the columns' names."""
    return format_of(path) is None or bool(_SYNSET.fullmatch(next(iter(column_names(path)), "")))


def _of_table(path: Path) -> Iterator[tuple[int, str, str]]:
    columns = column_names(path)
    of_id = next((name for name in columns if name.lower() in _ID_COLUMNS), None)
    of_name = next((name for name in _NAME_COLUMNS if name in columns and name != of_id), None)
    if len(columns) == 2:
        of_id = of_id or next(name for name in columns if name != of_name)
        of_name = of_name or next(name for name in columns if name != of_id)
    if of_id is None or of_name is None:
        raise InputError(
            f"the columns are {', '.join(columns)}; expected one of ids ({', '.join(_ID_COLUMNS)}) and one of "
            f"names ({', '.join(_NAME_COLUMNS)})",
            where=str(path),
        )
    rejects = Rejects(0)
    for number, row in read_rows(path, rejects):
        yield number, _text(row.get(of_id)), _text(row.get(of_name))
    rejects.raise_if_over_limit()


def _of_json(path: Path) -> Iterator[tuple[int, str, str]]:
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8-sig"), unique_keys=True)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid JSON: {error}", where=str(path)) from None
    if not isinstance(content, dict):
        yield from _of_table(path)
        return
    for number, (key, value) in enumerate(cast("dict[str, Any]", content).items(), start=1):
        values = cast("list[Any]", value) if isinstance(value, list) else [value]
        # Keras's imagenet_class_index.json: number -> [id, name].
        if len(values) == 2 and _SYNSET.fullmatch(str(values[0])):
            yield number, str(values[0]), _text(values[1]).replace("_", " ")
        else:
            yield number, key.strip(), ", ".join(filter(None, map(_text, values)))


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
