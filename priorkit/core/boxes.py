"""Boxes as text: ``[x1,y1,x2,y2]``, the one form that is read and written."""

from __future__ import annotations

import re
from collections.abc import Sequence

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom; shares of the image's width and height unless stated otherwise."""

FULL_IMAGE: Corners = (0.0, 0.0, 1.0, 1.0)
"""The box around everything."""

_NUMBER = r"\s*([+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*"

BOX_PATTERN = re.compile(r"\[" + ",".join([_NUMBER] * 4) + r"\]")
"""A box in a text; its four groups are the numbers. Brackets with anything else in them do not match."""


def corners_of(match: re.Match[str]) -> Corners:
    """The numbers of a match of :data:`BOX_PATTERN`."""
    x1, y1, x2, y2 = match.groups()
    return float(x1), float(y1), float(x2), float(y2)


def format_box(box: Sequence[float], decimals: int = 3) -> str:
    """A box as text, such as ``[0.440,0.060,0.650,0.367]``, the paper's form."""
    return f"[{','.join(f'{value:.{decimals}f}' for value in box)}]"
