"""Prompt templates: ``{}`` is where the name goes."""

from __future__ import annotations

from collections.abc import Iterable

from priorkit.core.errors import Problems


def check_templates(templates: Iterable[str], problems: Problems, thing: str = "name") -> None:
    """Add a problem where a template of ``--template`` has no ``{}``.

    Args:
        templates: as given.
        problems: where the problem goes.
        thing: what goes into the template.
    """
    if any("{}" not in template for template in templates):
        problems.add(f"a template needs {{}} where the {thing} goes", where="--template")
