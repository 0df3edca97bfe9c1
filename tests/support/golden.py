"""Read the golden data of tests/golden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def load(metric: str) -> dict[str, Any]:
    """One golden file: definition, cases, aggregate."""
    return json.loads((GOLDEN / f"{metric}.json").read_text(encoding="utf-8"))


def cases(metric: str) -> list[dict[str, Any]]:
    """Its cases, each with input, expected and why."""
    return load(metric)["cases"]
