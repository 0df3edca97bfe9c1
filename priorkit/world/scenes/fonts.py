"""Typefaces and glyphs: who draws a symbol, and its outline as a mask.

All typefaces are those that matplotlib ships: DejaVu (Sans, Serif, Sans Mono and their cuts) and
STIX. The LastResort font, which draws a placeholder for everything, is never used, nor are fonts
without Unicode names (Computer Modern, STIX sizes and non-Unicode sets).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageFont

TRAIN_TYPEFACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-BoldItalic",
    "DejaVuSerif-Italic",
    "STIXGeneral",
)
TEST_TYPEFACES = (
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSansMono-Oblique",
    "STIXGeneralBol",
    "STIXGeneralBolIta",
)
_MASTER_PIXELS = 96  # glyphs are cut once at this size and scaled down from it


def _path(typeface: str) -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{typeface}.ttf"


@cache
def _code_points(typeface: str) -> frozenset[int]:
    return frozenset(FT2Font(str(_path(typeface))).get_charmap())


@cache
def _font(typeface: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_path(typeface)), _MASTER_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def has_glyph(typeface: str, character: str) -> bool:
    """Whether the typeface has an outline with ink for the character."""
    return ord(character) in _code_points(typeface) and glyph(typeface, character) is not None


@cache
def glyph(typeface: str, character: str) -> Image.Image | None:
    """The glyph as a grey image ("L", 255 is ink), cropped to its ink; None where it has none."""
    mask = _font(typeface).getmask(character, mode="L")
    width, height = mask.size
    pixels = np.array(mask, dtype=np.uint8).reshape(height, width)
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return None
    return Image.fromarray(pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def raster(typeface: str, character: str, side: int) -> np.ndarray:
    """The glyph in the middle of a square, its longest side filling it.

    Returns:
        (side, side) float32 in 0..1, zeros where the typeface has no glyph.
    """
    square = Image.new("L", (side, side))
    image = glyph(typeface, character)
    if image is not None:
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        small = image.resize((width, height), Image.Resampling.BOX)
        square.paste(small, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square, dtype=np.float32) / 255
