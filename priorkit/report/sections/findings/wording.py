"""Words of findings: lists, effects with their intervals, and which of several can be decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from priorkit.core.interval import Interval
from priorkit.report import numbers

MOST_NAMED = 3
"""Things named at most; of more, the rest is counted."""


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference with its name."""

    name: str
    interval: Interval

    @property
    def text(self) -> str:
        """``name (+0.100 [+0.050, +0.150])``."""
        return f"{self.name} ({signed(self.interval)})"


def signed(interval: Interval) -> str:
    """A difference with its sign and interval."""
    return numbers.with_interval(interval, signed=True)


def known(interval: Interval) -> bool:
    """Whether a value has both ends of its interval."""
    return all(map(math.isfinite, (interval.value, interval.low, interval.high)))


def direction(interval: Interval, null: float = 0.0) -> int:
    """1 where the whole interval lies above ``null``, -1 where it lies below, 0 where it includes it."""
    return (interval.low > null) - (interval.high < null)


def listed(parts: Sequence[str], most: int = MOST_NAMED) -> str:
    """``a, b and c``; of more than ``most`` the rest is counted.

    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c", "d", "e"])
    ('a', 'a and b', 'a, b, c and 2 more')
    """
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def by_direction(effects: Sequence[Effect], noun: str, above: str, below: str) -> str:
    """In how many of several parts there is an effect, where there is one against it, and where none can be decided.

    Args:
        effects: of each part.
        noun: what the parts are, in the plural.
        above: what an effect above 0 is called, such as ``above guessing``.
        below: what one below 0 is called.
    """
    ordered = sorted(effects, key=lambda effect: effect.interval.value)
    up, down, undecided = (
        [effect for effect in ordered if direction(effect.interval) == sign] for sign in (1, -1, 0)
    )
    count = f"all {len(effects)}" if len(up) == len(effects) else f"{len(up) or 'none'} of {len(effects)}"
    parts = [f"{above} in {count} {noun}{_span(up)}"]
    if down:
        parts.append(f"{below} in {listed([effect.text for effect in down])}")
    if undecided:
        parts.append(f"undecided in {listed([effect.text for effect in undecided])}")
    return "; ".join(parts)


def _span(ordered: Sequence[Effect]) -> str:
    if not ordered:
        return ""
    if len(ordered) == 1:
        return f", {ordered[0].text}"
    return f", from {signed(ordered[0].interval)} ({ordered[0].name}) to {signed(ordered[-1].interval)} ({ordered[-1].name})"
