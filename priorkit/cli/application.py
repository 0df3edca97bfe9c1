"""The Typer application: steps, imported on demand, and the commands on recipes, artifacts and processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from priorkit import step_table
from priorkit.cli.output import print_result
from priorkit.core.errors import UsageError, nearest

if TYPE_CHECKING:
    from priorkit.core.artifact import Artifact
    from priorkit.core.options.settings import StepSettings


class StepGroup(TyperGroup):
    """The umbrella command: artifact and recipe commands are loaded, steps are imported on demand."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, the steps first."""
        return [*step_table.STEPS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; a step's module is imported here."""
        if cmd_name not in step_table.STEPS:
            return super().get_command(ctx, cmd_name)
        from priorkit.cli.options import step_command

        step = step_table.load(cmd_name)

        def run(settings: StepSettings) -> Artifact | None:
            return step.run(settings, _print_plan if settings.json_output else None)

        return step_command(step.settings, run, step_table.description(cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; an unknown one is answered with the nearest."""
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            raise UsageError(f"no step or command '{name}'", hint=nearest(name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of steps and commands."""
        rows = {name: step_table.summary(name) for name in step_table.STEPS}
        commands = {
            name: command.get_short_help_str(80).rstrip(".") for name, command in self.commands.items()
        }
        width = max(map(len, [*rows, *commands])) + 2
        lines = [
            "Usage: priorkit STEP [INPUT...] --out DIR [--recipe FILE] [options]",
            "",
            "How much can a multimodal model see because of what it already knows? Each step reads",
            "artifacts and makes one; it prints the path of what it made, so steps compose in a shell.",
            "",
            "Steps:",
            *(f"  {name:<{width}}{text}" for name, text in rows.items()),
            "",
            "Recipes, artifacts and scripts:",
            *(f"  {name:<{width}}{text}" for name, text in commands.items()),
            "",
            "priorkit STEP --help shows a step's main options with examples, --help-all all of them;",
            "priorkit --install-completion sets up completion in your shell.",
            "",
            "Examples:",
            "  priorkit glyph-world --out world",
            "  priorkit mix facts=world/text/facts.jsonl --tokenizer tokenizer --out corpus | "
            "priorkit pretrain - --preset pocket --out llm",
            "",
        ]
        formatter.write("\n".join(lines))


def application() -> typer.Typer:
    """The Typer application."""
    from priorkit.cli import artifacts, hub, preload, recipes

    app = typer.Typer(
        name="priorkit",
        cls=StepGroup,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    @app.callback(invoke_without_command=True)
    def root(
        context: typer.Context,
        version: bool = typer.Option(False, "--version", help="Show the version and exit."),
    ) -> None:
        """How much can a multimodal model see because of what it already knows?"""
        if version:
            from importlib import metadata

            print_result(f"priorkit {metadata.version('priorkit')}")
            raise typer.Exit
        if context.invoked_subcommand is None:
            raise UsageError("no step is given", hint="priorkit --help lists the steps")

    app.add_typer(recipes.app, name="recipe")
    for command in (artifacts.inspect, artifacts.verify, artifacts.diff, hub.push):
        app.command()(command)
    app.command(context_settings=preload.CONTEXT)(preload.preload)
    return app


def _print_plan(rows: Mapping[str, str]) -> None:
    print_result(json.dumps({"plan": dict(rows)}, ensure_ascii=False))
