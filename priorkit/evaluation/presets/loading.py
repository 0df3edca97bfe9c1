"""Benchmarks and suites as data: TOML files read and checked; README.md next to them has the format."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tomli
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from priorkit.core.errors import InputError, Problems, nearest
from priorkit.core.options.specs import plain_message
from priorkit.core.options.value_kinds import CheckedValues
from priorkit.evaluation.tasks.base import BoxSpace
from priorkit.scoring.answers.mcq.published import PARSERS

if TYPE_CHECKING:
    ParserName = str
else:
    ParserName = Literal[tuple(PARSERS)]

CellReader = Literal[
    "letter", "index", "number", "text", "label", "answer", "list", "commas", "yes-no", "xywh", "xyxy"
]  # fmt: skip
Cleanup = Literal[
    "strip", "strip-left", "lower", "lower-first", "capitalise", "no-final-stop", "single-blanks",
    "before-blank", "after-blank", "without-last-word", "last-word", "connector", "hellaswag", "wikitext",
]  # fmt: skip


class _Table(CheckedValues):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Cell(_Table):
    """Where the value of one of our columns comes from; see the README."""

    column: str | tuple[str, ...] = ()
    template: str = ""
    value: Any = None
    read: CellReader | None = Field(None, alias="as")
    labels: str = ""
    map: dict[str, Any] = Field({})
    apply: tuple[Cleanup, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        if isinstance(given, list):
            return {"column": given}
        if isinstance(given, str):
            return {"template": given} if "{" in given else {"column": given}
        return given

    @model_validator(mode="after")
    def _one_origin(self) -> Cell:
        if bool(self.column) + bool(self.template) + (self.value is not None) != 1:
            raise ValueError("give exactly one of column, template, value")
        if (self.read == "label") != bool(self.labels):
            raise ValueError('as = "label" and labels = "COLUMN" belong together')
        columns = self.column if isinstance(self.column, tuple) else ()
        for text in (self.template, *(name for name in columns if "{" in name)):
            for _, name, clean, _ in string.Formatter().parse(text):
                if name == "":
                    raise ValueError(f"empty braces in {text!r}; a column goes there")
                if clean and clean not in get_args(Cleanup):
                    raise ValueError(
                        f"no clean-up '{clean}' in {text!r} ({nearest(clean, get_args(Cleanup))})"
                    )
        return self


class ImageTable(_Table):
    """Images in a separate table, found by a key."""

    config: str = ""
    split: str = ""
    files: tuple[str, ...] = ()
    key: str
    by: str
    column: str = "image"

    @property
    def patterns(self) -> tuple[str, ...]:
        """Globs of its files."""
        return _patterns(self.files, self.config, self.split)


class PresetData(_Table):
    """Where a benchmark's rows are, and which of them count."""

    hub: str = ""
    path: str = ""
    config: str = ""
    split: str = "test"
    files: tuple[str, ...] = ()
    items: int = 0
    where: dict[str, Any] = Field({})
    lacks: tuple[str, ...] = ()
    explode: str = ""
    images: ImageTable | None = None
    image_folder: str = ""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Globs of the rows' files."""
        return _patterns(self.files, self.config, self.split)


def _patterns(files: tuple[str, ...], config: str, split: str) -> tuple[str, ...]:
    return files or ((f"{config}/{split}-*.parquet",) if config else (f"data/{split}-*.parquet",))


class PresetPrompt(_Table):
    """How items are put; empty texts leave it to ``prompts.toml``."""

    chat: str = ""
    plain: str = ""
    choices: Literal["auto", "letter", "text"] = "auto"
    joiner: str = " "

    @field_validator("chat", "plain")
    @classmethod
    def _known_places(cls, text: str) -> str:
        try:
            names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        except ValueError as error:
            raise ValueError(f"{error}; a brace of the text's own is written twice") from None
        for name in names:
            if name not in ("question", "options"):
                raise ValueError(f"no placeholder {{{name}}}; {{question}} and {{options}} are known")
        return text


class PresetScoring(_Table):
    """How answers count."""

    metric: str = "accuracy"
    full_score: Annotated[float, Field(gt=0)] = 1.0
    parser: ParserName = "careful"
    reading: Literal["official", "strict"] = "official"
    box_space: BoxSpace = "unit"
    cluster: str = ""
    circular: bool = False
    max_new_tokens: Annotated[int | None, Field(ge=1)] = None


class Preset(_Table):
    """One benchmark."""

    name: str
    about: str
    task: str
    group: str = ""
    version: int = Field(ge=1)
    licence: str = ""
    source: str = ""
    note: str = ""
    checked: str = ""
    data: PresetData = PresetData()
    columns: dict[str, Cell]
    prompt: PresetPrompt = PresetPrompt()
    scoring: PresetScoring = PresetScoring()
    folder: Path = Path()

    def digest(self) -> str:
        """SHA-256 over everything it says of the benchmark, wherever its file is.

        Defaults are left out, so that a new key changes no digest; so is the parser, which changes nothing that
        a model is asked.
        """
        text = self.model_dump_json(
            exclude={"folder": True, "checked": True, "scoring": {"parser"}}, exclude_defaults=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def required_columns(self) -> tuple[str, ...]:
        """Columns that must be in the published table."""
        named: list[str] = [*self.data.where, *([self.data.explode] if self.data.explode else [])]
        named += [self.data.images.by] if self.data.images else []
        for cell in self.columns.values():
            columns = cell.column if isinstance(cell.column, tuple) else (cell.column,)
            templates = [cell.template, *(name for name in columns if "{" in name)]
            named += [cell.column] if isinstance(cell.column, str) and cell.column else []
            named += [cell.labels] if cell.labels else []
            named += [name for text in templates for _, name, _, _ in string.Formatter().parse(text) if name]
        return tuple(dict.fromkeys(name for name in named if not name.startswith("_")))

    def location(self) -> str:
        """Path or hub id of its data; the latter with globs of the files it needs.

        Raises:
            InputError: it names neither.
        """
        if self.data.path:
            return str(self.folder / self.data.path)
        if not self.data.hub:
            raise InputError(
                f"the data of '{self.name}' is not on the hub in a form that can be read",
                hint=f"give a table with its columns: {self.name}=FILE ({self.note or self.source})",
            )
        tables = self.data.images.patterns if self.data.images else ()
        return f"{self.data.hub}#{','.join((*self.data.patterns, *tables))}"


@dataclass(frozen=True)
class Suite:
    """A set of benchmarks whose headline numbers are averaged.

    Attributes:
        name: its file's name.
        about: one sentence.
        groups: the benchmarks of each ability group, in order; suites within are resolved.
    """

    name: str
    about: str
    groups: Mapping[str, tuple[str, ...]]

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
    return Suite(name, str(table["about"]), groups)


def _members(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        if name in suite_names():
            yield from suite(name).members
        else:
            yield preset(name).name


def expand(given: str, arguments: Sequence[str] = ()) -> dict[str, str]:
    """The benchmarks that a user's argument names.

    A name that ships with priorkit is that benchmark or suite also where a file or folder is called so, which
    may be the very results: ``./NAME`` is the path.

    Args:
        given: a path or hub id; the name of a benchmark or suite that ships with priorkit; ``NAME=DATA``
            for such a benchmark on other data; or a benchmark's own TOML file.
        arguments: all that was written, in order. A suite leaves a member to whoever names it: another word is the
            member's name or ``NAME=DATA``, or a suite before it has it too.

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
    """The benchmarks that a suite leaves to other words."""
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
