"""Writes priorkit/api/steps.pyi, which declares the functions of the steps for editors and type checkers.

Run ``python -m tests.support.step_stub`` after a change of options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import priorkit.api.steps
from priorkit.core.options.specs import OptionSpec
from priorkit.step_table import STEPS, load, summary

STUB = Path(priorkit.api.steps.__file__).with_suffix(".pyi")

HEADER = '''"""Every step as a function; written by tests/support/step_stub.py from the steps' settings."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from priorkit.core.artifact import Artifact
from priorkit.core.options.specs import OptionSpec
from priorkit.core.step import Step

COMMAND_LINE_ONLY: tuple[str, ...]

def check(step: str, *arguments: Any, **options: Any) -> dict[str, str]: ...
def step_function(command: str) -> Callable[..., Artifact]: ...
def parameters(step: Step[Any, Any]) -> list[OptionSpec]: ...
'''


def _type(spec: OptionSpec) -> str:
    if spec.choices:
        return f"Literal[{', '.join(map(repr, spec.choices))}]".replace("'", '"')
    if spec.value_type in (bool, int, float):
        text = spec.value_type.__name__
        return text if spec.value_type is bool else f"{text} | str"
    path = spec.accepts or spec.metavar in ("DIR", "FILE")
    return "str | PathLike[str]" if path else "str"


def _annotation(spec: OptionSpec) -> str:
    text = _type(spec)
    if spec.multiple and isinstance(spec.default, dict):
        text = f"Mapping[str, {text}]"
    elif spec.multiple:
        text = f"{text} | Sequence[{text}] | Mapping[str, {text}]"
    return text if spec.required or spec.default is not None else f"{text} | None"


def _function(name: str) -> str:
    lines = [f"def {name.replace('-', '_')}("]
    keywords = False
    for spec in priorkit.api.steps.parameters(load(name)):
        if not spec.positional and not keywords:
            keywords = True
            lines.append("    *,")
        default = "" if spec.required else " = ..."
        lines.append(f"    {spec.name}: {_annotation(spec)}{default},")
    return "\n".join([*lines, f') -> Artifact:\n    """{summary(name)}."""'])


def render() -> str:
    """The stub's text."""
    return HEADER + "\n" + "\n\n".join(_function(name) for name in STEPS) + "\n"


def formatted(text: str) -> str:
    """The text as ruff formats it."""
    import subprocess
    import sys

    command: list[Any] = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    STUB.write_text(formatted(render()), encoding="utf-8")
