"""A value with a confidence interval, and its form in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """``{"value", "low", "high"}``; None where a number is infinite or undefined, as JSON has neither."""
        return {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Interval:
        """Read what :meth:`to_dict` wrote; NaN where a number is None or missing."""
        value, low, high = (
            math.nan if entry.get(key) is None else float(entry[key]) for key in ("value", "low", "high")
        )
        return cls(value, low, high)


def finite(value: float) -> float | None:
    """The number, or None where it is infinite or undefined."""
    return value if math.isfinite(value) else None
