"""What a benchmark's TOML file may say, table by table; README.md next to this file describes it."""

from __future__ import annotations

import hashlib
import string
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, field_validator, model_validator

from priorkit.core.boxes import DECIMAL_BOXES
from priorkit.core.errors import InputError, nearest
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


PROMPT_PLACES = ("question", "options", "box_request")
"""What the text of a prompt may name."""


class _Table(CheckedValues):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Cell(_Table):
    """Where the value of one of our columns comes from; see the README."""

    column: str | tuple[str, ...] = ()
    template: str = ""
    value: Any = None
    read: CellReader | None = Field(None, alias="as")
    labels: str = ""
    map: dict[str, Any] = Field(default={})
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
    where: dict[str, Any] = Field(default={})
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
            if name not in PROMPT_PLACES:
                known = ", ".join(f"{{{place}}}" for place in PROMPT_PLACES)
                raise ValueError(f"no placeholder {{{name}}}; known are {known}")
        return text


class PresetScoring(_Table):
    """How answers count."""

    metric: str = "accuracy"
    full_score: Annotated[float, Field(gt=0)] = 1.0
    parser: ParserName = "careful"
    reading: Literal["official", "strict"] = "official"
    box_space: BoxSpace = "auto"
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
        a model is asked. A request for a box counts as it is asked by default.
        """
        text = self.model_dump_json(
            exclude={"folder": True, "checked": True, "scoring": {"parser"}}, exclude_defaults=True
        )
        text = text.replace("{box_request}", DECIMAL_BOXES.request)
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
