"""Commands for recipes: list, show, check, schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from priorkit import step_table
from priorkit.analysis.claims.reading import CLAIMS_TABLE, read_claims
from priorkit.cli.output import print_result
from priorkit.cli.recipe_cost import cost_table, table_settings
from priorkit.core.errors import PriorkitError, Problems, UsageError, nearest
from priorkit.core.options import recipe

app = typer.Typer(help="List, show and check recipes, or print the JSON schema of a step's table.")


@app.command("list")
def list_recipes() -> None:
    """List the recipes that come with priorkit."""
    rows: list[str] = []
    for name, path in recipe.shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").rstrip(".")
        rows.append(f"{name:<29} {first} ({', '.join(recipe.read_toml(path))})")
    print_result("\n".join(rows))


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="RECIPE|STEP", help="A recipe, or a step for all its keys.")],
    cost: Annotated[
        bool,
        typer.Option(
            "--cost", help="Steps, tokens, FLOPs and memory per GPU of its training stages instead."
        ),
    ] = False,
    gpus: Annotated[int, typer.Option(min=1, metavar="N", help="GPUs that --cost counts with.")] = 8,
    model: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Language model of --cost, where the recipe does not name one."),
    ] = None,
    text_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Mean tokens of a sample's text in --cost.")
    ] = 200,
) -> None:
    """Print a recipe, or every key of a step with its default and meaning."""
    if cost:
        path = recipe.find(name)
        print_result(cost_table(path, recipe.read_toml(path), gpus, model, text_tokens))
        return
    if name in step_table.STEPS:
        print_result(recipe.template(step_table.load(name).settings).rstrip())
        return
    print_result(recipe.find(name).read_text(encoding="utf-8").rstrip())


@app.command()
def check(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped one.")
    ],
) -> None:
    """Check every table of a recipe, or a file of claims: keys, types, values."""
    path = recipe.find(name)
    document = recipe.read_toml(path)
    if CLAIMS_TABLE in document:
        claims = read_claims(path)
        print_result(f"{path}: {', '.join(claim.id for claim in claims)}: all keys and values are valid")
        return
    problems = Problems(UsageError)
    if not document:
        problems.add("the recipe is empty", where=str(path))
    steps = [step for step in document if step in step_table.STEPS]
    for step, content in document.items():
        if step not in step_table.STEPS:
            problems.add(
                f"unknown step '{step}'", where=f"{path} [{step}]", hint=nearest(step, step_table.STEPS)
            )
        elif not isinstance(content, dict):
            problems.add(f"'{step}' must be a table", where=str(path))
    for step in steps:
        try:
            table_settings(path, step, document)
        except PriorkitError as error:
            problems.extend(error)
    problems.raise_if_any()
    print_result(f"{path}: {', '.join(steps)}: all keys and values are valid")


@app.command()
def schema(step: Annotated[str, typer.Argument(metavar="STEP", help="Name of a step.")]) -> None:
    """Print the JSON schema of a step's table, for editors."""
    if step not in step_table.STEPS:
        raise UsageError(f"no step '{step}'", hint=nearest(step, step_table.STEPS))
    model = step_table.load(step).settings
    print_result(json.dumps(recipe.settings_schema(model), indent=2, ensure_ascii=False))
