"""Files that rows name, as values that can be compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path


def listed(named: Mapping[str, tuple[Path, Collection[str]]]) -> dict[str, tuple[Path, list[str]]]:
    """The folder and the list of names of each entry of ``named_files``."""
    return {label: (folder, list(names)) for label, (folder, names) in named.items()}
