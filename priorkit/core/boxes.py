"""Boxes as text: the formats in which texts are written, and how each is found again in a text.

A corner is a share of the image's width or height. What is written here is read by
``priorkit.scoring.answers.boxes.read_box`` as it is, without any declaration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Literal, get_args

Corners = tuple[float, float, float, float]
"""Left, top, right and bottom; shares of the image's width and height unless stated otherwise."""

FULL_IMAGE: Corners = (0.0, 0.0, 1.0, 1.0)
"""The box around everything."""

BoxFormatName = Literal["decimals", "thousandths", "location-tokens"]

BOX_FORMAT_NAMES: tuple[BoxFormatName, ...] = get_args(BoxFormatName)

LOCATION_TOKENS = 1000
"""Location tokens of Florence-2: one for each thousandth of a side."""

NUMBER_PATTERN = r"\s*([+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*"
"""A plain number with white space around it, as a group."""

_POINT = r"\(\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\)"


@dataclass(frozen=True)
class BoxNotation:
    """What a format's text looks like.

    Attributes:
        published: who writes boxes so.
        pattern: matches a box; its four groups are numbers.
        share: the share of the side that a number stands for.
        request: what follows on "Answer with its box" in a prompt.
        example: the box (0.1, 0.2, 0.3, 0.4).
        summary: a few words for the help.
    """

    published: str
    pattern: re.Pattern[str]
    share: Callable[[float], float]
    request: str
    example: str
    summary: str


BOX_NOTATIONS: Mapping[BoxFormatName, BoxNotation] = MappingProxyType(
    {
        "decimals": BoxNotation(
            "Shikra, LLaVA 1.5, LION",
            re.compile(r"\[" + ",".join([NUMBER_PATTERN] * 4) + r"\]"),
            float,
            "[x1,y1,x2,y2]",
            "[0.100,0.200,0.300,0.400]",
            "shares of the image's sides",
        ),
        "thousandths": BoxNotation(
            "Qwen-VL, Qwen2-VL",
            re.compile(rf"{_POINT}\s*,\s*{_POINT}"),
            lambda number: number / 1000,
            "(x1,y1),(x2,y2)",
            "(100,200),(300,400)",
            "whole thousandths of them",
        ),
        "location-tokens": BoxNotation(
            "Florence-2",
            re.compile(r"\s*".join([r"<loc_([0-9]{1,3})>"] * 4)),
            lambda number: (number + 0.5) / LOCATION_TOKENS,
            "in location tokens",
            "<loc_100><loc_200><loc_300><loc_400>",
            "a token of its own for each corner's coordinate, which the tokenizer must have",
        ),
    }
)
"""The formats, the numbers of each with coordinates that no option changes."""


@dataclass(frozen=True)
class BoxWriter:
    """Writes boxes in one format, and finds those in a text.

    Attributes:
        format: name of the format.
        decimals: of a number, for decimals.
        bins: for location tokens: corners are rounded to this many-ths of a side, so that ``bins + 1`` different
            tokens are written; 1000 for all of Florence-2's, unrounded.
    """

    format: BoxFormatName = "decimals"
    decimals: int = 3
    bins: int = LOCATION_TOKENS

    @property
    def notation(self) -> BoxNotation:
        """What the format's text looks like."""
        return BOX_NOTATIONS[self.format]

    @property
    def request(self) -> str:
        """The sentence of a prompt that asks for a box in this format."""
        return f"Answer with its box {self.notation.request}."

    def write(self, box: Sequence[float]) -> str:
        """A box as text, such as ``[0.440,0.060,0.650,0.367]``.

        Corners are at most half a bin from those given. Where both ends of a side would get the same number, one of
        them is moved to the next, since a box without area is none.

        Args:
            box: normalized corners.

        Raises:
            ValueError: a corner is outside [0, 1], or the corners are in the wrong order.
        """
        check_box(box)
        x1, y1, x2, y2 = box
        (left, right), (top, bottom) = self._side(x1, x2), self._side(y1, y2)
        numbers = [self._spelling(number) for number in (left, top, right, bottom)]
        if self.format == "thousandths":
            return "({},{}),({},{})".format(*numbers)
        return "".join(numbers) if self.format == "location-tokens" else f"[{','.join(numbers)}]"

    def matches(self, text: str) -> Iterator[re.Match[str]]:
        """The boxes in a text, whether their corners make sense or not."""
        return self.notation.pattern.finditer(text)

    def corners(self, match: re.Match[str]) -> Corners:
        """The corners of a match, as they are written."""
        x1, y1, x2, y2 = (self.notation.share(float(number)) for number in match.groups())
        return x1, y1, x2, y2

    def boxes_in(self, texts: Iterable[str]) -> list[Corners]:
        """All boxes in texts, as normalized corners."""
        return [self.corners(match) for text in texts for match in self.matches(text)]

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The tokens that a tokenizer must have for this format."""
        if self.format != "location-tokens":
            return ()
        return tuple(self._spelling(number) for number in range(self._last + 1))

    @property
    def _last(self) -> int:
        """The number of the last position on a side, from 0."""
        if self.format == "decimals":
            return 10**self.decimals
        if self.format == "thousandths":
            return 1000
        return self.bins - (self.bins == LOCATION_TOKENS)

    def _side(self, low: float, high: float) -> tuple[int, int]:
        first, last = self._position(low), self._position(high)
        if first < last:
            return first, last
        nearer_below = (low + high) / 2 < self._share(first)
        if first == self._last or (nearer_below and first > 0):
            return first - 1, last
        return first, last + 1

    def _position(self, share: float) -> int:
        """The number of the position at a share of a side, from 0."""
        if self.format == "decimals":
            return int(Decimal(f"{share:.{self.decimals}f}").scaleb(self.decimals))
        if self.format == "location-tokens" and self.bins == LOCATION_TOKENS:
            # Bins as in Florence-2, read at their centers; the rounding is for 0.29 * 1000 = 289.99999999999994.
            return min(int(round(share * LOCATION_TOKENS, 9)), self._last)
        return int(share * self._last + 0.5)

    def _share(self, position: int) -> float:
        """The share of a side at a position."""
        if self.format == "location-tokens" and self.bins == LOCATION_TOKENS:
            return self.notation.share(position)
        return position / self._last

    def _spelling(self, position: int) -> str:
        if self.format == "decimals":
            return f"{Decimal(position).scaleb(-self.decimals):.{self.decimals}f}"
        if self.format == "thousandths":
            return str(position)
        return f"<loc_{min(position * LOCATION_TOKENS // self.bins, LOCATION_TOKENS - 1)}>"


DECIMAL_BOXES = BoxWriter()
"""Boxes with three decimals, the default format."""


def check_box(box: Sequence[float], spelled: str = "") -> None:
    """Check that corners are normalized and in order.

    Args:
        box: the corners.
        spelled: the box as the user wrote it, for the message.

    Raises:
        ValueError: a corner is outside [0, 1], or the corners are in the wrong order.
    """
    x1, y1, x2, y2 = box
    spelled = spelled or str(list(box))
    if not all(0 <= value <= 1 for value in box):
        raise ValueError(f"the box {spelled} leaves [0, 1]; normalize it by width and height")
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"the box {spelled} has reversed corners or no area; expected x1 < x2 and y1 < y2")
