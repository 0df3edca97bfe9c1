"""Lists of class names as they are published: lines, numbered lines, tables with a header, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from priorkit.core.errors import InputError
from priorkit.core.json_text import parse_json

NAMES_FILES = (
    "names.txt",
    "objectInfo150.txt",
    "object150_info.csv",
    "id2label.json",
    "ade20k-id2label.json",
)
"""File names that are found in a data set's folder."""

_UNLABELED = frozenset({"background", "other", "unlabeled", "unlabelled", "void", "ignore"})
_NAME_COLUMNS = ("name", "names", "class", "label", "category", "class_name")
_NUMBER_COLUMNS = ("idx", "id", "index", "number", "class_id", "label_id")
_NUMBERED = re.compile(r"\s*(\d+)\s*(?:[:.,;)\t]|\s-?)\s*(\S.*)")


def read_class_names(path: Path) -> dict[int, str]:
    """Names of classes by their number in masks, where 0 is unlabeled.

    Read are a name per line from 1 on; numbered lines (``1: wall``, ``1 wall``); tables with a header apart by
    tabs, commas or semicolons (``object150_info.csv``, ``objectInfo150.txt``); JSON lists and mappings either
    way round (``id2label.json``). Numbers from 0 on are moved up by one, as 0 is unlabeled in masks, unless
    class 0 is called background or the like. Of several names for a class (``sofa, couch`` or ``sofa;couch``)
    the first is taken.

    Raises:
        InputError: the file cannot be read, holds no names, or a number or name is missing or a duplicate.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason} at byte {error.start}", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        pairs = _from_json(text) if path.suffix == ".json" else _from_lines(text, path.suffix == ".csv")
    except ValueError as error:
        raise InputError(
            str(error), where=str(path), hint="expected a name per line, or a table with a column 'name'"
        ) from None
    if not pairs:
        raise InputError("the file holds no names", where=str(path))
    numbers = [number for number, _ in pairs]
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise InputError(f"two classes have the number {twice}", where=str(path))
    names = {number: re.split(r"[,;]", name)[0].strip() for number, name in pairs}
    if nameless := [number for number, name in names.items() if not name]:
        raise InputError(f"the class {nameless[0]} has no name", where=str(path))
    return _from_one(names)


def _from_one(names: Mapping[int, str]) -> dict[int, str]:
    """Numbers as masks have them: 0 is unlabeled."""
    if 0 not in names:
        return dict(names)
    if names[0].lower() in _UNLABELED:
        return {number: name for number, name in names.items() if number}
    return {number + 1: name for number, name in names.items()}


def _from_json(text: str) -> list[tuple[int, str]]:
    try:
        document: Any = parse_json(text, unique_keys=True)
    except json.JSONDecodeError as error:
        raise ValueError(f"not readable as JSON: {error}") from None
    if isinstance(document, dict):
        table = cast("dict[str, Any]", document)
        document = table.get("id2label", table.get("names", table))
    if isinstance(document, list):
        return [(number, _name(name)) for number, name in enumerate(cast("list[Any]", document), start=1)]
    if not isinstance(document, dict):
        raise ValueError("JSON with names is a list, or an object of numbers and names")
    pairs = [(str(key), value) for key, value in cast("dict[str, Any]", document).items()]
    if pairs and all(type(value) is int for _, value in pairs):
        return [(value, key) for key, value in pairs]
    return [(_number(key), _name(value)) for key, value in pairs]


def _from_lines(text: str, table: bool) -> list[tuple[int, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    delimiter = next((sign for sign in "\t,;" if sign in lines[0]), ",")
    header = [field.strip().strip('"').lower() for field in lines[0].split(delimiter)]
    if (len(header) > 1 or table) and set(header) & set(_NAME_COLUMNS):
        return _from_table(lines, delimiter, header)
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = [(int(match[1]), match[2].split("\t")[-1]) for match in matches if match]
    # Tables of tabs may have a header of any names.
    if len(numbered) == len(lines) or (delimiter == "\t" and len(numbered) == len(lines) - 1):
        return numbered
    return [(number, line.split("\t")[0]) for number, line in enumerate(lines, start=1)]


def _from_table(lines: Sequence[str], delimiter: str, header: Sequence[str]) -> list[tuple[int, str]]:
    names = next(header.index(name) for name in _NAME_COLUMNS if name in header)
    numbers = next((header.index(name) for name in _NUMBER_COLUMNS if name in header), None)
    pairs: list[tuple[int, str]] = []
    rows = csv.reader(io.StringIO("\n".join(lines[1:])), delimiter=delimiter, skipinitialspace=True)
    for index, row in enumerate(rows, start=1):
        if len(row) <= max(names, numbers or 0):
            raise ValueError(f"row {index} after the header has {len(row)} of {len(header)} columns")
        pairs.append((index if numbers is None else _number(row[numbers]), row[names]))
    return pairs


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"expected the number of a class, got '{text}'")
    return int(text)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected the name of a class, got {value!r}")
    return value
