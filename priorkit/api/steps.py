"""Every step as a function: ``priorkit.steps.mix(sources={...}, tokenizer="tokenizer", out="corpus")``.

A function takes the options of its step by name, the inputs by position too, and returns the artifact. A repeated
option takes one value or a sequence, a NAME=VALUE option a mapping; paths and artifacts are both accepted as inputs.
``steps.pyi`` next to this file declares the functions for editors and type checkers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from priorkit.api.errors import parameter_errors, parameter_names
from priorkit.core.artifact import Artifact
from priorkit.core.options.specs import OptionSpec, build, option_specs
from priorkit.core.step import Step
from priorkit.step_table import STEPS, description, load

COMMAND_LINE_ONLY = ("check", "json_output", "quiet")
"""Options that say what the command line prints."""


def __getattr__(name: str) -> Callable[..., Artifact]:
    if name.replace("_", "-") not in STEPS:
        raise AttributeError(f"there is no step '{name}'")
    return step_function(name.replace("_", "-"))


def __dir__() -> list[str]:
    return [name.replace("-", "_") for name in STEPS]


def check(step: str, *arguments: Any, **options: Any) -> dict[str, str]:
    """Validate a step's options, inputs, shapes, memory and disk, and return its plan without running it.

    Args:
        step: the step's name, such as ``"mix"``.
        *arguments: as for the step's function.
        **options: as for the step's function.

    Returns:
        What the step would do, by topic; empty where its artifact is complete already.
    """
    plan: dict[str, str] = {}
    _run(load(step.replace("_", "-")), arguments, {**options, "check": True}, plan.update)
    return plan


@cache
def step_function(command: str) -> Callable[..., Artifact]:
    """The function of a step."""
    step = load(command)
    rename = parameter_names(step.settings)

    def run(*arguments: Any, **options: Any) -> Artifact:
        return cast("Artifact", _run(step, arguments, options, None))

    specs = parameters(step)
    lines = [
        f"    {spec.name}: {rename(spec.help)}"
        + (f" One of {', '.join(map(repr, spec.choices))}." if spec.choices else "")
        for spec in specs
    ]
    run.__name__ = run.__qualname__ = command.replace("-", "_")
    run.__module__ = "priorkit.steps"
    run.__doc__ = "\n".join([rename(description(command)), "", "Args:", *lines])
    signature = inspect.Signature([_parameter(step, spec) for spec in specs], return_annotation=Artifact)
    cast("Any", run).__signature__ = signature
    return run


def parameters(step: Step[Any, Any]) -> list[OptionSpec]:
    """The options that a step's function takes, in order."""
    specs = option_specs(step.settings).values()
    return sorted(
        (spec for spec in specs if spec.name not in COMMAND_LINE_ONLY),
        key=lambda spec: (not spec.positional, spec.positional and not spec.required),
    )


def _parameter(step: Step[Any, Any], spec: OptionSpec) -> inspect.Parameter:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if spec.positional else inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        spec.name,
        kind,
        default=inspect.Parameter.empty if spec.required else spec.default,
        annotation=step.settings.model_fields[spec.name].annotation,
    )


def _run(
    step: Step[Any, Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    show_plan: Callable[[Mapping[str, str]], None] | None,
) -> Artifact | None:
    specs = option_specs(step.settings)
    positional = [spec.name for spec in parameters(step) if spec.positional]
    if len(arguments) > len(positional):
        raise TypeError(
            f"{step.name} takes {len(positional)} positional arguments but {len(arguments)} were given"
        )
    by_key = {spec.key: name for name, spec in specs.items()}
    given = dict(zip(positional, arguments, strict=False))
    for key, value in options.items():
        name = key if key in specs else by_key.get(key, key)
        if name in given:
            raise TypeError(f"{step.name} got multiple values for argument '{name}'")
        given[name] = value
    values = {name: _plain(value, specs.get(name)) for name, value in given.items()}
    with parameter_errors(step.settings):
        return step.run(build(step.settings, values, where=lambda name: name), show_plan)


def _plain(value: Any, spec: OptionSpec | None) -> Any:
    """A value as the settings take it: paths and artifacts as text, one value of several in a list."""
    if isinstance(value, os.PathLike):
        value = os.fspath(cast("os.PathLike[str]", value))
    elif isinstance(value, Mapping):
        return {key: _plain(item, None) for key, item in cast("Mapping[str, Any]", value).items()}
    elif isinstance(value, list | tuple):
        return [_plain(item, None) for item in cast("Sequence[Any]", value)]
    single = spec is not None and spec.multiple and value is not None
    return [value] if single else value
