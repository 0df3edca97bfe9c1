"""Benchmarks and suites that ship with priorkit or are the user's: finding and reading their TOML files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import tomli
from pydantic import ValidationError

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.options.specs import plain_message
from priorkit.evaluation.presets.schema import Cell, Preset, PresetData, PresetPrompt, PresetScoring


@dataclass(frozen=True)
class Suite:
    """A set of benchmarks whose headline numbers are averaged.

    Attributes:
        name: its file's name.
        about: one sentence.
        groups: the benchmarks of each ability group, in order; suites within are resolved.
        by: how its paper asks models (``--by auto``); empty where that is left to the task type.
        parser: its paper's parser of written choices (``--parser auto``); empty for each benchmark's own.
    """

    name: str
    about: str
    groups: Mapping[str, tuple[str, ...]]
    by: str = ""
    parser: str = ""

    @property
    def members(self) -> tuple[str, ...]:
        """All benchmarks, each once."""
        return tuple(dict.fromkeys(name for names in self.groups.values() for name in names))


def _package() -> Path:
    return Path(str(resources.files("priorkit.evaluation").joinpath("presets")))


@cache
def preset_names() -> tuple[str, ...]:
    """The benchmarks that ship with priorkit."""
    return tuple(sorted(file.stem for file in _package().glob("*.toml")))


@cache
def suite_names() -> tuple[str, ...]:
    """The suites that ship with priorkit."""
    return tuple(sorted(file.stem for file in (_package() / "suites").glob("*.toml")))


@cache
def preset(name: str) -> Preset:
    """A benchmark that ships with priorkit.

    Raises:
        InputError: there is none of that name.
    """
    if name not in preset_names():
        known = (*preset_names(), *suite_names())
        raise InputError(f"no such file, benchmark or suite: {name}", hint=nearest(name, known))
    return read_preset(_package() / f"{name}.toml")


@cache
def suite(name: str) -> Suite:
    """A suite that ships with priorkit, suites within it resolved.

    Raises:
        InputError: there is none of that name, or a member is not known.
    """
    table = _table(_package() / "suites" / f"{name}.toml")
    groups = {group: tuple(_members(names)) for group, names in table["groups"].items()}
    return Suite(name, str(table["about"]), groups, str(table.get("by", "")), str(table.get("parser", "")))


def _members(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name in suite_names():
            yield from suite(name).members
        else:
            yield preset(name).name


def expand(given: str, arguments: Sequence[str] = ()) -> dict[str, str]:
    """The benchmarks that a user's argument names.

    A name that ships with priorkit means that benchmark or suite even if a file or folder has the name, such as
    a folder of results: ``./NAME`` is the path.

    Args:
        given: a path or hub id; the name of a benchmark or suite that ships with priorkit; ``NAME=DATA``
            for such a benchmark on other data; or a benchmark's own TOML file.
        arguments: all that was written, in order. A suite leaves out a member that another argument names, as itself
            or as ``NAME=DATA``, or that an earlier suite has too.

    Returns:
        Paths and hub ids by what follows on the input's label: ``.NAME`` for a preset's data, nothing for
        a file of the user's own.

    Raises:
        InputError: a word that is neither a file nor a known name; a preset's file is wrong.
    """
    if given in suite_names():
        taken = _taken(given, arguments)
        return {f".{name}": preset(name).location() for name in suite(given).members if name not in taken}
    if given in preset_names():
        return {f".{given}": preset(given).location()}
    path = Path(given).expanduser()
    if path.suffix == ".toml" and path.is_file():
        user_preset = read_preset(path)
        return {"": given, f".{user_preset.name}": user_preset.location()}
    if path.exists():
        return {"": given}
    name, sign, data = given.partition("=")
    if sign and name in preset_names():
        return {f".{name}": data}
    if not any(mark in given for mark in "/.@\\"):
        preset(given)  # Reports the nearest name.
    return {"": given}


def _taken(given: str, arguments: Sequence[str]) -> set[str]:
    """The benchmarks of a suite that other arguments name."""
    named = {word.partition("=")[0] for word in arguments} & set(preset_names())
    before = arguments[: arguments.index(given)] if given in arguments else ()
    return named.union(*(suite(word).members for word in before if word in suite_names()))


def read_preset(path: Path) -> Preset:
    """Read a benchmark's file.

    Raises:
        InputError: it is not readable TOML, or keys are unknown, missing or of the wrong type; all
            problems at once.
    """
    table = _table(path)
    try:
        return Preset(**{"name": path.stem, **table, "folder": path.parent})
    except ValidationError as error:
        problems = Problems(InputError)
        for item in error.errors(include_url=False):
            key = ".".join(str(part) for part in item["loc"])
            message = {"extra_forbidden": "unknown key", "missing": "missing key"}.get(item["type"])
            text = f"{message} '{key}'" if message else f"{key}: {plain_message(item)}"
            problems.add(
                text, where=str(path), hint=_nearest_key(item["loc"]) if message == "unknown key" else ""
            )
        problems.fail()


def _nearest_key(key_path: tuple[int | str, ...]) -> str:
    tables = {"data": PresetData, "prompt": PresetPrompt, "scoring": PresetScoring}
    model = tables.get(str(key_path[0]), Cell) if len(key_path) > 1 else Preset
    return nearest(str(key_path[len(key_path) - 1]), sorted(model.model_fields), only_close=True)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomli.loads(path.read_text(encoding="utf-8-sig"))
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"not valid TOML: {error}", where=str(path)) from None
