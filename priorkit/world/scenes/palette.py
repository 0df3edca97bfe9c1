"""The words of the visual world and what they look like: colours, backgrounds, sizes, numbers.

Ink is never black, white or grey: many symbols carry "black" (filled) or "white" (outlined) in
their official name, and a question for the colour must have one answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Literal

Rgb = tuple[int, int, int]
Size = Literal["small", "medium", "large"]

INKS: MappingProxyType[str, Rgb] = MappingProxyType(
    {
        "red": (214, 32, 36),
        "orange": (243, 128, 12),
        "yellow": (228, 190, 0),
        "green": (28, 142, 56),
        "blue": (32, 88, 218),
        "purple": (126, 46, 176),
        "pink": (242, 110, 182),
        "brown": (122, 74, 36),
    }
)
# All tints are light, so that ink is darker than its ground, as in print: an encoder as small as the
# pocket one need not learn both polarities.
TINTS: MappingProxyType[str, Rgb] = MappingProxyType(
    {
        "white": (246, 246, 246),
        "grey": (196, 196, 196),
        "cream": (247, 232, 200),
        "mint": (204, 238, 216),
        "lilac": (222, 206, 240),
        "sky": (190, 220, 248),
    }
)
TEXTURES: MappingProxyType[str, str] = MappingProxyType(
    {"plain": "plain", "gradient": "shaded", "noise": "grainy"}
)
# Longest side of an object as a share of the image side; the gaps between the ranges make the word
# unambiguous. 0.30 of 48 pixels is 14 pixels: below that symbols cannot be distinguished.
SIZES: MappingProxyType[Size, tuple[float, float]] = MappingProxyType(
    {"small": (0.30, 0.35), "medium": (0.42, 0.50), "large": (0.60, 0.96)}
)
SIZE_WORDS: tuple[Size, ...] = tuple(SIZES)
"""From small to large."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_LEAST_CONTRAST = 40.0


def luminance(color: Rgb) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601 luma)."""
    red, green, blue = color
    return 0.299 * red + 0.587 * green + 0.114 * blue


def is_legible(ink: str, tint: str) -> bool:
    """Whether the ink contrasts with the tint."""
    return abs(luminance(INKS[ink]) - luminance(TINTS[tint])) >= _LEAST_CONTRAST


def legible_tints(inks: Sequence[str]) -> list[str]:
    """The tints on which all of these inks are is_legible, in the order of :data:`TINTS`."""
    return [tint for tint in TINTS if all(is_legible(ink, tint) for ink in inks)]


def article(phrase: str) -> str:
    """The phrase with its indefinite article.

    >>> article("orange anchor"), article("euro sign")
    ('an orange anchor', 'a euro sign')
    """
    vowel = phrase[0] in "aeiou" and not phrase.startswith(("eu", "uni", "one"))
    return f"{'an' if vowel else 'a'} {phrase}"
