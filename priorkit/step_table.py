"""The table of steps. A step's module is imported when it is asked for, so that help is instant."""

from __future__ import annotations

import ast
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from priorkit.core.step import Step

STEPS = {
    name: "priorkit.steps." + name.replace("-", "_")
    for name in (
        "glyph-world",
        "convert",
        "convert-data",
        "tokenizer",
        "label-corpus",
        "mix",
        "suggest-mix",
        "pretrain",
        "blind-tune",
        "pretrain-encoder",
        "distill-encoder",
        "align",
        "tag-images",
        "tune",
        "merge-adapters",
        "rank-e",
        "representation-alignment",
        "mle-bench",
        "evaluate",
        "stress-test",
        "correlate",
        "diagnose",
        "report",
    )
}
"""Step name -> module, in the order of a pipeline."""


def summary(name: str) -> str:
    """A step's one-line summary: the first line of its description."""
    return description(name).splitlines()[0].rstrip(".")


def description(name: str) -> str:
    """A step's description: its module's docstring, read without importing it."""
    spec = util.find_spec(STEPS[name])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(STEPS[name])
    source = Path(spec.origin).read_text(encoding="utf-8")
    return ast.literal_eval(source[: source.index('"""', 3) + 3]).strip()


def load(name: str) -> Step[Any, Any]:
    """Import a step's module and return its ``STEP``."""
    return import_module(STEPS[name]).STEP
