"""The forms in which published models write boxes: a table of patterns, each with its coordinates.

Plain numbers are in the declared coordinates (``--box-space``), whatever the model; where none are declared, in
those that are usual for the form. Location tokens and the two forms that put y first have coordinates of their
own, which no option changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from priorkit.core.boxes import BOX_NOTATIONS, LOCATION_TOKENS, NUMBER_PATTERN, Corners

_FOUR = ",".join([NUMBER_PATTERN] * 4)
_PATCHES = 32
_TENS = r"<\s*([0-9]{1,3})\s*>"


@dataclass(frozen=True)
class BoxFormat:
    """One form of a box in text.

    Attributes:
        form: how it looks, in Markdown, for the documentation.
        models: who writes it, with the coordinates to declare.
        coordinates: the coordinates in a few words, where none are declared.
        pattern: matches a box; its groups are numbers.
        corners: the corners, from the groups.
        example: an answer with the box (0.1, 0.2, 0.3, 0.4), as near as its coordinates allow; in thousandths if
            declared.
        declared: whether the corners are in the declared coordinates; otherwise they are fractions of the image.
        usual: width and height of the image in the coordinates of the corners where none are declared.
    """

    form: str
    models: str
    coordinates: str
    pattern: re.Pattern[str]
    corners: Callable[[Corners], Corners]
    example: str
    declared: bool = False
    usual: float = 1.0


def _same(numbers: Corners) -> Corners:
    return numbers


def _y_first(bins: float) -> Callable[[Corners], Corners]:
    return lambda numbers: (numbers[1] / bins, numbers[0] / bins, numbers[3] / bins, numbers[2] / bins)


def _bins(bins: float, offset: float = 0.0) -> Callable[[Corners], Corners]:
    """Corners from the numbers of bins; ``offset`` is the position within a bin."""

    def corners(numbers: Corners) -> Corners:
        x1, y1, x2, y2 = ((number + offset) / bins for number in numbers)
        return x1, y1, x2, y2

    return corners


def _patch_corners(numbers: Corners) -> Corners:
    """Corners from two patches of a grid of 32 by 32, as ``patch_index_to_coordinate`` of transformers' Kosmos-2.

    The corners are the patches' centers; where the two share a row or column, their outer edges.
    """
    first, last = int(numbers[0]), int(numbers[2])
    (y1, x1), (y2, x2) = divmod(first, _PATCHES), divmod(last, _PATCHES)
    low, high = (0.0, 1.0) if x1 == x2 or y1 == y2 else (0.5, 0.5)
    return (x1 + low) / _PATCHES, (y1 + low) / _PATCHES, (x2 + high) / _PATCHES, (y2 + high) / _PATCHES


BOX_FORMATS = (
    BoxFormat(
        '`"box_2d": [y1, x1, y2, x2]`',
        "Gemini, Gemma",
        "thousandths, y first",
        re.compile(rf"[\"']box_2d[\"']\s*:\s*\[{_FOUR}\]"),
        _y_first(1000),
        '{"box_2d": [200, 100, 400, 300], "label": "cat"}',
    ),
    BoxFormat(
        r"`[x1,y1,x2,y2]`, also in further brackets, JSON (`bbox_2d`), `<box>` or `<\|det\|>`, or followed by `;` and "
        "more boxes",
        "Shikra, LLaVA (`unit`); Ferret, InternVL, DeepSeek-VL2, GLM, CogVLM, Qwen3-VL (`1000`); Qwen2.5-VL (`pixels` "
        "of the image as the model saw it)",
        "as declared; `unit`",
        re.compile(rf"\[{_FOUR}(?=[\];])"),
        _same,
        '[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]',
        declared=True,
    ),
    BoxFormat(
        r"`(x1,y1),(x2,y2)` with whole numbers, with or without `<box>` or `<\|box_start\|>`",
        "Qwen-VL, Qwen2-VL",
        "as declared; `1000`",
        # Decoding without special tokens removes the marks around it.
        BOX_NOTATIONS["thousandths"].pattern,
        _same,
        "<ref>the cat</ref><box>(100,200),(300,400)</box>",
        declared=True,
        usual=1000,
    ),
    BoxFormat(
        "`<box>x1 y1 x2 y2</box>`, `<bbox>...</bbox>`",
        "MiniCPM-V, Seed-VL (`1000`)",
        "as declared; `unit`",
        re.compile(r"<b?box>" + r"\s".join([NUMBER_PATTERN] * 4) + r"</b?box>"),
        _same,
        "<box>100 200 300 400</box>",
        declared=True,
    ),
    BoxFormat(
        "`{<x1><y1><x2><y2>}`",
        "MiniGPT-v2",
        "hundredths",
        re.compile(r"\{" + r"\s*".join([_TENS] * 4) + r"\s*\}"),
        _bins(100),
        "<p>cat</p> {<10><20><30><40>}",
    ),
    BoxFormat(
        "`<loc0000>` four times",
        "PaliGemma",
        "1024 bins, y first",
        re.compile(r"\s*".join([r"<loc([0-9]{4})>"] * 4)),
        _y_first(1024),
        "<loc0205><loc0102><loc0410><loc0307> cat",
    ),
    BoxFormat(
        "`<loc_0>` four times",
        "Florence-2",
        "centers of 1000 bins",
        BOX_NOTATIONS["location-tokens"].pattern,
        _bins(LOCATION_TOKENS, 0.5),
        "cat<loc_100><loc_200><loc_300><loc_400>",
    ),
    BoxFormat(
        "`<patch_index_0000>` twice",
        "Kosmos-2",
        "patches of a 32 x 32 grid, as in transformers",
        re.compile(r"<patch_index_([0-9]{4})>()<patch_index_([0-9]{4})>()"),
        _patch_corners,
        "<phrase>the cat</phrase><object><patch_index_0195><patch_index_0393></object>",
    ),
)
"""All known forms; of several in an answer, the one that begins first counts, and of two at one place the upper."""


def find_box(answer: str) -> tuple[Corners, BoxFormat] | None:
    """The first box in an answer, with its form; None if there is none.

    Args:
        answer: the text.

    Returns:
        Corners in the declared coordinates, or fractions of the image where ``declared`` is False.
    """
    matches = [(match, form) for form in BOX_FORMATS if (match := form.pattern.search(answer))]
    if not matches:
        return None
    match, form = min(matches, key=lambda pair: pair[0].start())
    x1, y1, x2, y2 = (float(number or 0) for number in match.groups())
    return form.corners((x1, y1, x2, y2)), form
