"""Families of recipes: many recipes from one template and one table, written out only when they are asked for.

``NAME.family.toml`` holds a table ``[family]``: the ``template`` (Jinja, in the same folder), the ``name`` of a recipe and
the ``columns`` with their ``rows``, and perhaps ``[family.values]`` that all rows share. Name and values may use the
columns: ``name = "lsbs-3b-{{ source }}"``.
"""

from __future__ import annotations

import itertools
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import tomli

SUFFIX = ".family.toml"


@dataclass(frozen=True)
class GeneratedRecipe:
    """A recipe of a family; it is read like a file.

    Attributes:
        name: as in ``--recipe NAME``.
        template: the file that it is made from.
        row: the row of the table.
        shared: values of all rows, which may use the row's.
    """

    name: str
    template: Path
    row: Mapping[str, Any] = field(hash=False)
    shared: Mapping[str, Any] = field(hash=False)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _text(self) -> str:
        environment = _environment(self.template.parent)

        def filled(value: Any) -> Any:
            if isinstance(value, list):
                return [filled(item) for item in typing.cast("list[Any]", value)]
            return environment.from_string(value).render(self.row) if isinstance(value, str) else value

        values = {name: filled(value) for name, value in self.shared.items()}
        template = environment.get_template(self.template.name)
        text = template.render({**values, **self.row, "name": self.name})
        # Macros leave blank lines.
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """The recipe's text; the arguments are those of a path's method and are not needed."""
        return self._text


def is_family(path: Path) -> bool:
    """Whether a file describes a family."""
    return path.name.endswith(SUFFIX)


def members(path: Path, folder: Path) -> Iterator[GeneratedRecipe]:
    """The recipes of a family, in the order of its rows.

    Args:
        path: the family's file.
        folder: the folder of all recipes, to which names are relative.
    """
    family = tomli.loads(path.read_text(encoding="utf-8"))["family"]
    where = path.parent.relative_to(folder).as_posix()
    naming, shared = _environment(path.parent).from_string(family["name"]), family.get("values", {})
    for cells in family["rows"]:
        row = dict(zip(family["columns"], cells, strict=True))
        name = naming.render(row)
        name = name if where == "." else f"{where}/{name}"
        yield GeneratedRecipe(name, path.parent / family["template"], row, shared)


def expand(paths: list[Path], folder: Path) -> dict[str, Path | GeneratedRecipe]:
    """Recipes by name: those of files and those of families, sorted.

    Args:
        paths: TOML files below the folder.
        folder: the folder of all recipes.
    """
    files = {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in paths if not is_family(path)
    }
    generated = itertools.chain.from_iterable(members(path, folder) for path in paths if is_family(path))
    return dict(sorted({**files, **{recipe.name: recipe for recipe in generated}}.items()))


@cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    # The result is TOML, not HTML.
    return Environment(
        loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
