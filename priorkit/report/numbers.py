"""Numbers as people read them: at most four significant digits, intervals in brackets."""

from __future__ import annotations

import math

from priorkit.core.interval import Interval

SIGNIFICANT = 4
_MINUS = "\N{MINUS SIGN}"


def plain(value: float) -> str:
    """A number with at most four significant digits; integers below a million are written out.

    >>> plain(0.123456), plain(123456), plain(0.5), plain(12345.6)
    ('0.1235', '123,456', '0.5', '12,350')
    """
    if math.isnan(value):
        return "n/a"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{_MINUS}\N{INFINITY}"
    if value == 0:
        return "0"
    sign = _MINUS if value < 0 else ""
    size = abs(value)
    if size == round(size) and size < 1e6:
        return f"{sign}{size:,.0f}"
    if size >= 1e6 or size < 1e-3:
        return f"{sign}{size:.3g}"
    decimals = max(0, SIGNIFICANT - 1 - math.floor(math.log10(size)))
    shortened = round(size, SIGNIFICANT - 1 - math.floor(math.log10(size)))
    text = f"{shortened:,.{decimals}f}"
    return sign + (text.rstrip("0").rstrip(".") if "." in text else text)


def fixed(value: float) -> str:
    """A number with three significant digits and its trailing zeros, so that columns line up.

    >>> fixed(0.5), fixed(0.04), fixed(12.34), fixed(250.0)
    ('0.500', '0.040', '12.3', '250')
    """
    if math.isnan(value) or math.isinf(value) or abs(value) >= 1000:
        return plain(value)
    size = abs(value)
    sign = _MINUS if value < 0 and round(size, 3) else ""
    if size >= 99.95:
        return f"{sign}{size:.0f}"
    return f"{sign}{size:.1f}" if size >= 9.995 else f"{sign}{size:.2f}" if size >= 1 else f"{sign}{size:.3f}"


def with_interval(interval: Interval, signed: bool = False) -> str:
    """``value [low, high]``; only the value where the interval is not known.

    Args:
        interval: what to show.
        signed: write a plus before what is not negative, for differences.
    """
    value, low, high = (
        _signed(x) if signed else fixed(x) for x in (interval.value, interval.low, interval.high)
    )
    if math.isnan(interval.low) or math.isnan(interval.high):
        return value
    return f"{value} [{low}, {high}]"


def _signed(value: float) -> str:
    text = fixed(value)
    return text if math.isnan(value) or value == 0 or text.startswith(_MINUS) else f"+{text}"


def p_value(value: float) -> str:
    """A p-value: three digits, and a bound where it is tiny."""
    if math.isnan(value):
        return "n/a"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def share(value: float) -> str:
    """A share as per cent."""
    return "n/a" if math.isnan(value) else f"{100 * value:.1f} %"


def seconds(value: float) -> str:
    """A duration: seconds below two minutes, then minutes, then hours."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size_in_bytes(value: float) -> str:
    """A size in MiB or GiB."""
    return f"{value / 2**20:,.0f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"
