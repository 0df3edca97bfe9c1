"""Settings to options: a step's Typer command is derived from its settings model."""

from __future__ import annotations

import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand

from priorkit.cli import output
from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.core.json_text import parse_json
from priorkit.core.options import recipe
from priorkit.core.options.settings import StepSettings
from priorkit.core.options.specs import OptionSpec, build, flag_of, key_of, option_specs
from priorkit.step_table import STEPS

RECIPE_HELP = (
    "TOML file (or name of a shipped recipe) whose table for this step holds settings; options win over it."
)


def parameters(model: type[StepSettings]) -> list[inspect.Parameter]:
    """The Typer parameters of a step. All are text here; the settings model checks the types."""
    options = [_parameter(spec) for spec in option_specs(model).values()]
    recipe_option = typer.Option("--recipe", metavar="FILE", help=RECIPE_HELP)
    options.append(_keyword("recipe", Annotated[str | None, recipe_option]))
    return options


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parameter(spec: OptionSpec) -> inspect.Parameter:
    if spec.positional:
        info = typer.Argument(metavar=spec.metavar + ("..." if spec.multiple else ""), help=spec.help)
        return _keyword(spec.name, Annotated[list[str] | None if spec.multiple else str | None, info])
    if spec.is_flag:
        return _keyword(spec.name, Annotated[bool | None, typer.Option(_switch(spec), help=spec.help)])
    info = typer.Option(
        spec.flag, metavar=spec.metavar, help=spec.help, autocompletion=_completer(spec.choices)
    )
    return _keyword(spec.name, Annotated[list[str] | None if spec.multiple else str | None, info])


def _switch(spec: OptionSpec) -> str:
    """Both spellings of a switch, as a recipe may have set it; those of the output are given only to be on."""
    return spec.flag if spec.group == "output" else f"{spec.flag}/--no-{spec.flag[2:]}"


def _completer(choices: tuple[str, ...]) -> Callable[[str], list[str]] | None:
    if not choices:
        return None

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def read_settings(model: type[StepSettings], given: Mapping[str, Any]) -> StepSettings:
    """Merge command line over recipe over defaults and validate; ``-`` is read from standard input.

    Raises:
        UsageError: unknown keys or wrong values, each with its option or its place in the recipe.
    """
    values: dict[str, Any] = {}
    recipe_path = recipe.find(given["recipe"]) if given.get("recipe") else Path()
    if given.get("recipe"):
        values = recipe.step_values(recipe_path, model, STEPS)
    from_recipe = set(values)
    typed = {name: value for name, value in given.items() if name != "recipe" and value not in (None, [], ())}
    values.update(_from_stdin(typed))
    from_recipe -= set(typed)

    def where(name: str) -> str:
        return (
            recipe.key_location(recipe_path, model.step, key_of(model, name))
            if name in from_recipe
            else flag_of(model, name)
        )

    return build(model, values, where)


def _from_stdin(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the input ``-`` by the path that the previous step printed."""
    flat = [item for value in values.values() for item in (value if isinstance(value, list) else [value])]
    from_stdin = sum(item == "-" or (isinstance(item, str) and item.endswith("=-")) for item in flat)
    if from_stdin == 0:
        return values
    if from_stdin > 1:
        raise UsageError("only one input can be '-': standard input carries one path")
    path = _path_on_stdin()

    def fill(item: Any) -> Any:
        if item == "-":
            return path
        if isinstance(item, str) and item.endswith("=-"):
            return item[:-1] + path
        return item

    return {
        name: [fill(item) for item in value] if isinstance(value, list) else fill(value)
        for name, value in values.items()
    }


def _path_on_stdin() -> str:
    text = sys.stdin.read().strip() if not sys.stdin.isatty() else ""
    if text.startswith("{"):
        try:
            return str(parse_json(text)["path"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError("standard input holds JSON without a 'path'", where="-") from None
    if not text:
        raise InputError(
            "standard input is empty: the previous step printed no path",
            where="-",
            hint="see its message above; '-' is the path that the previous step of a pipe prints",
        )
    return text.splitlines()[-1]


class StepCommand(TyperCommand):
    """A step's command: help grouped by topic, with defaults and working examples."""

    model: type[StepSettings]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text from the settings model."""
        formatter.write(render_help(self.model, self.help or "", ctx.command_path))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse options; an unknown one is answered with the nearest valid."""
        args = _by_name(self.model, args)
        if HELP_ALL in _before_separator(args) and HELP_ALL not in _option_values(self, args):
            text = render_help(self.model, self.help or "", ctx.command_path, advanced=True)
            output.print_result(text.rstrip("\n"))
            ctx.exit()
        known = {flag for param in self.params for flag in (*param.opts, *param.secondary_opts)}
        unknown = [
            arg.split("=")[0]
            for arg in _before_separator(args)
            if arg.startswith("--") and len(arg) > 2 and arg.split("=")[0] not in known
        ]
        values = _option_values(self, args)
        unknown = [arg for arg in unknown if arg not in values and arg != "--help"]
        if unknown:
            raise UsageError(
                f"unknown option {unknown[0]}", hint=nearest(unknown[0], sorted({*known, HELP_ALL}))
            )
        return super().parse_args(ctx, args)


def _by_name(model: type[StepSettings], args: list[str]) -> list[str]:
    """Accept ``--benchmarks a,b`` for the arguments ``a b`` where the last argument takes several."""
    last = [spec for spec in option_specs(model).values() if spec.positional][-1:]
    if not last or not last[0].multiple or "=" in last[0].metavar:
        return args
    positional: list[str] = []
    named: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, sign, value = arg.partition("=")
        if flag == last[0].flag:
            named += (value if sign else next(rest, "")).split(",")
        else:
            positional.append(arg)
    return [*positional, *filter(None, named)]


def _before_separator(args: list[str]) -> list[str]:
    return args[: args.index("--")] if "--" in args else args


def _option_values(command: TyperCommand, args: list[str]) -> set[str]:
    """The arguments that are values of an option, such as a template that begins with dashes."""
    takes_value = {
        flag
        for param in command.params
        for flag in param.opts
        if flag.startswith("-") and not getattr(param, "is_flag", False)
    }
    return {value for flag, value in itertools.pairwise(args) if flag in takes_value}


HELP_ALL = "--help-all"
"""The option that shows the help with all options."""

_WIDTH = 100
_INDENT = 30


def render_help(model: type[StepSettings], text: str, command: str, advanced: bool = False) -> str:
    """The help of a step: usage, text, options by group, examples.

    Args:
        model: the step's settings.
        text: what the step does.
        command: how it was called.
        advanced: show advanced options too.
    """
    declared = list(option_specs(model).values())
    specs = [spec for spec in declared if advanced or not spec.advanced]
    names = [spec.metavar + ("..." if spec.multiple else "") for spec in specs if spec.positional]
    lines = [f"Usage: {command} {' '.join(names)} --out DIR [options]".replace("  ", " "), ""]
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines += [*textwrap.wrap(" ".join(paragraph.split()), _WIDTH), ""]
    group = ""
    for spec in specs:
        if spec.group != group:
            if group:
                lines.append("")
            group = spec.group
            lines.append(f"{group.capitalize()}:")
        lines += _help_rows(spec)
    lines += _help_rows_of("--recipe FILE", RECIPE_HELP)
    if hidden := len(declared) - len(specs):
        lines += ["", f"{hidden} more options: {command} {HELP_ALL}"]
    lines += ["", "Examples:", *(f"  {example}" for example in model.examples), ""]
    return "\n".join(lines)


def _help_rows(spec: OptionSpec) -> list[str]:
    if spec.positional:
        head = spec.metavar + ("..." if spec.multiple else "")
    elif spec.is_flag:
        head = _switch(spec)
    else:
        head = f"{spec.flag} {spec.metavar}" + ("..." if spec.multiple else "")
    shown = _default_text(spec)
    return _help_rows_of(head, spec.help + (f" [default: {shown}]" if shown else ""))


def _help_rows_of(head: str, text: str) -> list[str]:
    body = textwrap.wrap(text, _WIDTH - _INDENT)
    first = f"  {head}"
    if len(first) + 2 > _INDENT:
        return [first, *(" " * _INDENT + row for row in body)]
    return [first.ljust(_INDENT) + body[0], *(" " * _INDENT + row for row in body[1:])]


def _default_text(spec: OptionSpec) -> str:
    value = spec.default
    if value is None or value is False or value in ((), {}, ""):
        return ""
    if value is True:
        return "on"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


def step_command(model: type[StepSettings], run: Callable[[Any], Any], text: str) -> StepCommand:
    """Build a step's command from its settings model."""
    name = model.step

    def run_step(**given: Any) -> None:
        output.configure(f"priorkit {name}", quiet=bool(given.get("quiet")))
        settings = read_settings(model, given)
        output.configure(f"priorkit {name}", quiet=settings.quiet)
        artifact = run(settings)
        if artifact is None:
            return
        if settings.json_output:
            output.print_result(json.dumps(artifact.to_json(), ensure_ascii=False))
        else:
            output.print_result(str(artifact.path))

    callback: Any = run_step
    callback.__signature__ = inspect.Signature(parameters(model))
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name, cls=StepCommand, help=text)(callback)
    command = cast(StepCommand, typer.main.get_command(app))
    command.model = model
    return command
