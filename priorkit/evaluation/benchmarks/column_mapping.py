"""From the columns of a benchmark as published to ours, by the rules of its preset."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from priorkit.core.json_text import lone_surrogate, parse_json
from priorkit.data.images.decoding import BrokenImageError, ImageRef, image_reference, upright_size
from priorkit.evaluation.presets.schema import Cell, Preset

Row = Mapping[str, Any]

_LETTER = re.compile(r"\(?\s*([A-Za-z])\s*[).:]?")


def mapped(
    preset: Preset, row: Row, folder: Path, images: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """The items that a row of the benchmark makes: none where it does not count.

    Args:
        preset: the benchmark.
        row: as published.
        folder: where image files named in it are.
        images: the images' table by key, where the benchmark has one.

    Raises:
        ValueError: a column is missing or a cell is not what the preset says; with the reason.
        BrokenImageError: a box is in pixels and the image cannot be read.
    """
    data = preset.data
    if not all(_is_one_of(lookup(row, name), allowed) for name, allowed in data.where.items()):
        return
    if any(lookup(row, name, missing=None) not in (None, "", []) for name in data.lacks):
        return
    rows = [row]
    if data.explode:
        parts = lookup(row, data.explode)
        if not isinstance(parts, list | tuple):
            raise ValueError(f"'{data.explode}' must be a list, got {type(parts).__name__}")
        rows = [{**row, data.explode: part, "_part": index} for index, part in enumerate(parts)]
    for item in rows:
        yield _one(preset, item, folder, images)


def image_value(preset: Preset, row: Row) -> Any:
    """The ``image`` of a row as the preset reads it; None where it has no such column.

    Raises:
        ValueError: the column is missing or not what the preset says.
    """
    cell = preset.columns.get("image")
    return None if cell is None else _cell(cell, row, {}, Path())


def _one(preset: Preset, row: Row, folder: Path, images: Mapping[str, Any] | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    join = preset.data.images
    if join is not None and images is not None:
        key = str(lookup(row, join.by))
        if key not in images:
            raise ValueError(f"no image with {join.key} '{key}'")
        fields["image"] = images[key]
    # Choices come first, since an answer may be one of their texts; the image before a box in pixels.
    order = sorted(preset.columns, key=lambda name: name not in ("image", "choices"))
    for name in order:
        fields[name] = _cell(preset.columns[name], row, fields, folder)
    return {name: fields[name] for name in ("image", *preset.columns) if name in fields}


def _cell(cell: Cell, row: Row, fields: Row, folder: Path) -> Any:
    value = _origin(cell, row)
    if cell.read is not None and value is not None:
        value = _read(cell, value, row, fields, folder)
    if cell.map:
        value = cell.map.get(str(value), value)
    for name in cell.apply:
        value = [_clean(name, text) for text in value] if isinstance(value, list) else _clean(name, value)
    return value


def _clean(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"'{name}' cleans up text, got {value!r}")
    return _CLEANUPS[name](value)


def _origin(cell: Cell, row: Row) -> Any:
    if cell.value is not None:
        return cell.value
    if cell.template:
        return _Template(row).filled(cell.template)
    if isinstance(cell.column, str):
        return lookup(row, cell.column)
    values = [
        _Template(row).filled(name) if "{" in name else lookup(row, name, missing=None)
        for name in cell.column
    ]
    if all(value is None for value in values) and not any(name in row for name in cell.column):
        raise ValueError(f"none of the columns {', '.join(cell.column)}; got {', '.join(row)}")
    # Tables that pass through pandas hold NaN where there is no further option.
    return [value for value in values if value not in (None, "", "nan") and value == value]


class _Template(string.Formatter):
    """``{a.b}`` is a cell; a null one is nothing; ``{a:NAME}`` is the cell after a clean-up."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def filled(self, text: str) -> str:
        """The text with its cells."""
        return str(self.vformat(text, (), {}))

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        """A cell by its name."""
        value = lookup(self.row, field_name)
        return "" if value is None or value == "nan" else value, field_name

    def format_field(self, value: Any, format_spec: str) -> Any:
        """A cell's text, cleaned up by the clean-up that is named."""
        return _CLEANUPS[format_spec](str(value)) if format_spec else str(value)


_REQUIRED = object()


def lookup(row: Row, name: str, missing: Any = _REQUIRED) -> Any:
    """A cell; ``a.b`` looks into a nested one where no column has that very name.

    Raises:
        ValueError: there is no such column and no value for a missing one.
    """
    value: Any = row
    if name in row:
        return row[name]
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            if missing is not _REQUIRED:
                return missing
            raise ValueError(f"no column '{name}'; got {', '.join(map(str, row))}")
        value = value[part]
    return value


def _is_one_of(value: Any, allowed: Any) -> bool:
    return value in allowed if isinstance(allowed, list) else value == allowed


def _read(cell: Cell, value: Any, row: Row, fields: Row, folder: Path) -> Any:
    kind = cell.read
    if kind == "list":
        return _as_list(value)
    if kind == "commas":
        return value if isinstance(value, list) else [part.strip() for part in str(value).split(",")]
    if kind == "answer":
        options = list(fields.get("choices", ()))
        kind = "text" if value in options else "letter" if isinstance(value, str) else "index"
    if kind == "letter":
        match = _LETTER.fullmatch(str(value).strip())
        if match is None:
            raise ValueError(f"expected a letter such as A or (A), got {value!r}")
        return string.ascii_uppercase.index(match[1].upper())
    if kind in ("index", "number"):
        text = str(value).strip()
        if not text.isdecimal():
            raise ValueError(f"expected a whole number, got {value!r}")
        return int(text) - (kind == "number")
    if kind in ("text", "label"):
        options = fields.get("choices", ()) if kind == "text" else lookup(row, cell.labels)
        places = [index for index, option in enumerate(options) if option == value]
        if len(places) != 1:
            raise ValueError(f"{value!r} is {len(places)} times among {list(options)!r}")
        return places[0]
    if kind == "yes-no":
        answer = {"1": "yes", "true": "yes", "yes": "yes", "0": "no", "false": "no", "no": "no"}
        text = str(value).strip().lower()
        if text not in answer:
            raise ValueError(f"expected a truth value, got {value!r}")
        return answer[text]
    return _normalised(value, fields, folder, corners=kind == "xyxy")


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    for parse in (parse_json, ast.literal_eval):
        try:
            parsed = parse(str(value))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(parsed, list | tuple) and lone_surrogate(parsed) is None:
            return list(parsed)
    raise ValueError(f"expected a list, got {str(value)[:60]!r}")


def _normalised(value: Any, fields: Row, folder: Path, *, corners: bool) -> list[float]:
    if not isinstance(value, Sequence) or len(value) != 4:
        raise ValueError(f"expected four numbers, got {value!r}")
    width, height = _size(fields.get("image"), folder)
    left, top, right, bottom = (float(number) for number in value)
    if not corners:
        right, bottom = left + right, top + bottom
    # Annotated boxes exceed their image by a fraction of a pixel now and then.
    box = (left / width, top / height, right / width, bottom / height)
    return [min(1.0, max(0.0, number)) for number in box]


def _size(value: Any, folder: Path) -> tuple[int, int]:
    """Of the upright image, which is what boxes are drawn on and what a model is shown."""
    try:
        return upright_size(value if isinstance(value, ImageRef) else image_reference(value, folder, "image"))
    except BrokenImageError as error:
        raise ValueError(f"the image cannot be read: {error}") from None


def _hellaswag(text: str) -> str:
    """lm-evaluation-harness's clean-up of WikiHow's headings: ``[title]`` ends a sentence, other brackets go."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _wikitext(text: str) -> str:
    """Undo WikiText's tokenisation as lm-evaluation-harness does: ``@-@``, blanks around punctuation."""
    text = text.replace("s '", "s'")
    text = re.sub(r"/' [0-9]/", r"/'[0-9]/", text)
    for mark in "-,.":
        text = text.replace(f" @{mark}@ ", mark)
    for mark in ":;.!?,":
        text = text.replace(f" {mark} ", f"{mark} ")
    for left, right in ("()", "[]", "{}"):
        text = re.sub(
            rf"\{left}\s*([^{re.escape(right)}]*?)\s*\{right}",
            lambda match, a=left, b=right: f"{a}{match[1]}{b}",
            text,
        )
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    text = re.sub(r"'\s*([^']*?)\s*'", r"'\1'", text)
    for old, new in (
        ("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" " + chr(176) + " ", chr(176)),
        (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s"),
    ):  # fmt: skip
        text = text.replace(old, new)
    return text


def _connector(text: str) -> str:
    """How a premise continues (COPA)."""
    words = {"cause": "because", "effect": "therefore"}
    if text not in words:
        raise ValueError(f"expected cause or effect, got {text!r}")
    return words[text]


_CLEANUPS: dict[str, Callable[[str], str]] = {
    "strip": str.strip,
    "strip-left": str.lstrip,
    "capitalise": str.capitalize,
    "before-blank": lambda text: text.partition("_")[0],
    "after-blank": lambda text: text.partition("_")[2].strip(),
    "without-last-word": lambda text: text.rpartition(" ")[0],
    "last-word": lambda text: text.rpartition(" ")[2],
    "connector": _connector,
    "lower": str.lower,
    "lower-first": lambda text: text[:1].lower() + text[1:],
    "no-final-stop": lambda text: text.strip().removesuffix("."),
    "single-blanks": lambda text: re.sub(r"\s+", " ", text).strip(),
    "hellaswag": _hellaswag,
    "wikitext": _wikitext,
}
