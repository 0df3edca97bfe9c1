"""Presets of new models: TOML tables in a package."""

from __future__ import annotations

from importlib import resources
from typing import Any

import tomli

from priorkit.core.errors import UsageError, nearest


def read_presets(package: str) -> dict[str, dict[str, Any]]:
    """The tables of a package's ``presets.toml`` by name."""
    text = resources.files(package).joinpath("presets.toml").read_text(encoding="utf-8")
    return tomli.loads(text)


def choose_preset(presets: dict[str, dict[str, Any]], name: str, thing: str = "preset") -> dict[str, Any]:
    """A preset by name.

    Args:
        presets: by name.
        name: as given with ``--preset``.
        thing: what it is called in the message.

    Raises:
        UsageError: there is no preset of that name.
    """
    if name not in presets:
        raise UsageError(f"no {thing} '{name}'", where="--preset", hint=nearest(name, presets))
    return presets[name]
