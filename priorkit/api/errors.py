"""Errors for callers in Python: they name parameters where the command line names options."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

from priorkit.core.errors import PriorkitError, Problem
from priorkit.core.options.settings import StepSettings
from priorkit.core.options.specs import option_specs

_FLAG = re.compile(r"(?<![\w-])--(?P<no>no-)?(?P<name>[a-z][\w-]*)(?: (?P<value>[\w.-]+))?")
_HELP = re.compile(r"(?:see )?priorkit (?P<step>[\w-]+) --help\b")


@contextmanager
def parameter_errors(model: type[StepSettings]) -> Generator[None, None, None]:
    """Let errors within speak of a step's parameters: ``learning_rate``, not ``--learning-rate``."""
    rename = parameter_names(model)
    try:
        yield
    except PriorkitError as error:
        renamed = (
            Problem(rename(problem.what), rename(problem.where), rename(problem.hint))
            for problem in error.problems
        )
        raise type(error)(renamed) from error.__cause__


def parameter_names(model: type[StepSettings]) -> Callable[[str], str]:
    """A function that replaces a step's options in a text by its parameters.

    ``--precision fp32`` becomes ``precision='fp32'`` where the option takes one of several words, ``--no-compile``
    becomes ``compile=False``, an argument such as ``MODEL`` its parameter ``model``.
    """
    specs = option_specs(model).values()
    options = {spec.flag: spec for spec in specs}
    arguments = {
        label: spec.name for spec in specs if spec.positional for label in (spec.metavar, spec.name.upper())
    }
    labels = re.compile(r"(?<![\w/.-])(?:" + "|".join(map(re.escape, arguments)) + r")(?![\w/.-])")

    def option(match: re.Match[str]) -> str:
        value = match["value"] or ""
        behind = f" {value}" if value else ""
        if spec := options.get(f"--{match['no'] or ''}{match['name']}"):
            return f"{spec.name}={value!r}" if value and value in spec.choices else spec.name + behind
        if match["no"] and (spec := options.get(f"--{match['name']}")):
            return f"{spec.name}=False{behind}"
        return match[0]

    def rename(text: str) -> str:
        text = _HELP.sub(lambda match: f"see help(priorkit.steps.{match['step'].replace('-', '_')})", text)
        text = _FLAG.sub(option, text)
        return labels.sub(lambda match: arguments[match[0]], text) if arguments else text

    return rename
