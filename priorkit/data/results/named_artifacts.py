"""Inputs that may carry a name: ``PATH`` or ``NAME=PATH``."""

from __future__ import annotations

import os
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from priorkit.core.options.value_kinds import shown

KINDS = (
    *("tokenizer", "text", "llm", "encoder", "mllm", "adapter", "corpus"),
    *("scores", "evaluation", "benchmark", "world"),
)
"""Kinds of artifact that a report can show."""


def _labelled(value: Any) -> Any:
    """Read words into name -> path, naming by folder where no name is given; a table passes through."""
    if not isinstance(value, list | tuple):
        return value
    named: list[tuple[str, str]] = []
    for item in typing.cast("Sequence[Any]", value):
        if not isinstance(item, str):
            raise ValueError(f"expected PATH or NAME=PATH, got {shown(item)}")
        name, sign, path = item.partition("=")
        if sign and os.sep not in name:
            if not name.strip() or not path.strip():
                raise ValueError(f"expected NAME=PATH, got '{item}'")
            named.append((name.strip(), path.strip()))
        else:
            named.append(("", item))
    given = [name for name, _ in named if name]
    twice = next((name for name in given if given.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the name '{twice}' is given twice")
    paths: dict[str, str] = {}
    for name, path in named:
        label = name or _folder_name(path, {*paths, *given})
        if label in paths:
            raise ValueError(f"'{path}' is given twice")
        paths[label] = path
    return paths


def _folder_name(path: str, taken: set[str]) -> str:
    """A path's last part, with as many parents as make it unique."""
    parts = Path(path).expanduser().absolute().parts
    for count in range(1, len(parts) + 1):
        name = "/".join(parts[-count:])
        if name not in taken:
            return name
    return path


Labelled = Annotated[dict[str, str], BeforeValidator(_labelled), Field(min_length=1)]
"""Inputs in the order given, each as ``PATH`` or ``NAME=PATH``; at least one."""
