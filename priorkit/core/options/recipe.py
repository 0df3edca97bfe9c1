"""Recipes: TOML files with a table for each step, and the one that every artifact carries."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import tomli
import tomli_w

from priorkit.core.errors import InputError, Problems, UsageError, nearest
from priorkit.core.options.recipe_families import GeneratedRecipe, expand
from priorkit.core.options.settings import Settings, StepSettings
from priorkit.core.options.specs import OptionSpec, option_specs
from priorkit.core.options.value_kinds import shown

RecipeFile = Path | GeneratedRecipe
"""Where a recipe's text is: a file, or a member of a family."""


def shipped() -> dict[str, RecipeFile]:
    """The recipes that priorkit ships, by name: ``merge/ties`` for ``recipes/merge/ties.toml``, and those of families.

    A wheel holds them inside the package; in a checkout or an editable install they are next to it.
    """
    package = Path(str(resources.files("priorkit")))
    folder = next(
        (candidate for candidate in (package / "recipes", package.parent / "recipes") if candidate.is_dir()),
        package,
    )
    return expand(sorted(folder.rglob("*.toml")), folder)


def find(name: str) -> RecipeFile:
    """A recipe by path, or by name if priorkit ships it.

    Raises:
        InputError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    if name.removesuffix(".toml") in known:
        return known[name.removesuffix(".toml")]
    folder = path.parent
    siblings = [str(item) for item in sorted(folder.glob("*.toml"))] if folder.is_dir() else []
    raise InputError(
        f"no recipe file '{name}', and priorkit ships none of that name",
        hint=nearest(name, [*siblings, *known]),
    )


def read_toml(path: RecipeFile) -> dict[str, Any]:
    """Read a TOML file, or a recipe of a family.

    Raises:
        InputError: it cannot be read.
        UsageError: it is not UTF-8 text or not valid TOML (file and line are named).
    """
    try:
        # Some editors begin UTF-8 with a byte order mark.
        return tomli.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        folder = Path(str(path)).parent
        names = sorted(item.name for item in folder.glob("*.toml")) if folder.is_dir() else []
        raise InputError(
            "no such recipe", where=str(path), hint=nearest(Path(str(path)).name, names, only_close=True)
        ) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"not UTF-8 text (byte {error.start + 1})", where=str(path), hint="save the recipe as UTF-8"
        ) from None
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"not valid TOML: {error}", where=str(path)) from None


def _line_of(path: RecipeFile, table: str, key: str) -> int:
    """The line of a key of a table, 0 where it is not found (dotted or inline keys)."""
    current = ""
    spelling = re.sub(r"_|\\-", "[_-]", re.escape(key))
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = match[1].replace('"', "")
            if current == f"{table}.{key}" if table else current == key:
                return number
        elif current.split(".")[0] == table and re.match(rf'\s*"?{spelling}"?\s*[=.]', line):
            return number
    return 0


def key_location(path: RecipeFile, step: str, key: str) -> str:
    """The location of a key, for error messages: ``file.toml:12 [pretrain] learning_rate``."""
    return f"{_place(path, step, key)} [{step}] {key}"


def _place(path: RecipeFile, table: str, key: str) -> str:
    """File and line of a key of a table, only the file where the line is not found."""
    line = _line_of(path, table, key)
    return f"{path}:{line}" if line else str(path)


def step_values(path: RecipeFile, model: type[StepSettings], steps: typing.Iterable[str]) -> dict[str, Any]:
    """Read a step's own table from a recipe, its sub-tables flattened, its keys checked.

    Args:
        path: the recipe.
        model: the step's settings.
        steps: all step names, to distinguish another step's table from a misspelled one.

    Raises:
        UsageError: the table is missing, or keys are unknown; the nearest valid ones are named.
    """
    document = read_toml(path)
    problems = Problems(UsageError)
    known = list(steps)
    for name, value in document.items():
        if name in known and not isinstance(value, dict):
            got = "a list" if isinstance(value, list) else shown(value)
            problems.add(f"should be one table [{name}], got {got}", where=_place(path, "", name))
        elif not isinstance(value, dict):
            problems.add(
                f"the key '{name}' is outside a step's table",
                where=_place(path, "", name),
                hint=f"put it under [{model.step}]",
            )
        elif name not in known:
            problems.add(f"unknown step '{name}'", where=f"{path} [{name}]", hint=nearest(name, known))
    if model.step not in document and not len(problems):
        tables = ", ".join(f"[{name}]" for name in document) or "no table at all"
        problems.add(f"no [{model.step}] table; the file has {tables}", where=str(path))
    table = document.get(model.step)
    values = (
        _flatten(path, model, typing.cast("dict[str, Any]", table), problems)
        if isinstance(table, dict)
        else {}
    )
    problems.raise_if_any()
    return values


def _flatten(
    path: RecipeFile, model: type[StepSettings], table: Mapping[str, Any], problems: Problems
) -> dict[str, Any]:
    specs = option_specs(model)
    groups = {_table_name(spec.group) for spec in specs.values()}
    fields = {spec.key: name for name, spec in specs.items()}
    values: dict[str, Any] = {}

    def take(key: str, value: Any) -> None:
        name = fields.get(key.replace("-", "_"), "")
        if not name:
            valid = [*fields, *sorted(groups)]
            problems.add(
                f"unknown key '{key}'", where=key_location(path, model.step, key), hint=nearest(key, valid)
            )
        elif name in values:
            problems.add(f"the key '{key}' is given twice", where=key_location(path, model.step, key))
        else:
            values[name] = value

    for key, value in table.items():
        if isinstance(value, dict) and key in groups and key not in fields:
            for inner, content in typing.cast("dict[str, Any]", value).items():
                take(inner, content)
        elif key in groups and key not in fields:
            problems.add(f"should be a table, got {shown(value)}", where=key_location(path, model.step, key))
        else:
            take(key, value)
    return values


def _table_name(group: str) -> str:
    return group.replace(" ", "_")


def render(settings: StepSettings, inputs: Mapping[str, str] | None = None) -> str:
    """A recipe that re-creates what these settings made, each key with its help as a comment.

    Args:
        settings: the resolved settings.
        inputs: absolute paths of inputs by label (``corpus``, ``sources.facts``, ``models.0``), written
            instead of the paths as given, so that the recipe works from any folder.
    """
    values = settings.model_dump(mode="json")
    for label, path in (inputs or {}).items():
        name, _, part = label.partition(".")
        if not part:
            values[name] = path
        elif isinstance(values[name], dict):
            values[name][part] = path
        elif part.isdecimal():
            values[name][int(part)] = path
        else:
            # One value that means several inputs keeps its name; ``NAME=PATH`` gets the resolved path.
            index, _, source = part.partition(".")
            if str(values[name][int(index)]).startswith(f"{source}="):
                values[name][int(index)] = f"{source}={path}"
    keep = {name: value for name, value in values.items() if name not in OUTPUT_ONLY and value is not None}
    return _render(type(settings), keep)


def template(model: type[StepSettings]) -> str:
    """A recipe with every key of a step at its default, required ones as comments."""
    defaults = {
        spec.name: spec.default
        for spec in option_specs(model).values()
        if not spec.required and spec.name not in OUTPUT_ONLY
    }
    return _render(model, defaults, show_unset=True)


OUTPUT_ONLY = ("out", "force", "check", "json_output", "quiet", "recipe")
"""Options that say how to run, not what to make; they stay out of recipes that artifacts carry."""


def _render(model: type[StepSettings], values: Mapping[str, Any], show_unset: bool = False) -> str:
    tables: dict[str, list[str]] = {}
    for spec in option_specs(model).values():
        if spec.name in OUTPUT_ONLY:
            continue
        value = values.get(spec.name)
        if value is None and not show_unset:
            continue
        top_level = spec.group in ("inputs", "what to do")
        header = model.step if top_level else f"{model.step}.{_table_name(spec.group)}"
        rows = tables.setdefault(header, [])
        rows.append(f"# {spec.help}{_values_comment(spec)}")
        rows.append(f"# {spec.key} =" if value is None else f"{spec.key} = {_toml(value)}")
    return "\n\n".join("\n".join([f"[{header}]", *rows]) for header, rows in tables.items()) + "\n"


def _values_comment(spec: OptionSpec) -> str:
    return f" One of: {', '.join(spec.choices)}." if spec.choices else ""


def _toml(value: Any) -> str:
    """A value on one line: tomli_w writes arrays and tables over several, and no comments."""
    if isinstance(value, Mapping):
        pairs = typing.cast("Mapping[str, Any]", value)
        inner = ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in pairs.items())
        return "{ " + inner + " }" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in typing.cast("list[Any]", value)) + "]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def settings_schema(model: type[Settings]) -> dict[str, Any]:
    """The JSON schema of a step's table, for editors."""
    return model.model_json_schema()
