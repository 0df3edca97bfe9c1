"""Scenes and their pictures: what is where, the image, and the exact mask of every object.

An object is a glyph in one colour, sometimes on a tile that belongs to it. Objects never overlap and
clutter is behind them, so the mask of an object is known exactly: the pixels that its tile, or else
its glyph, covers to at least one half.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.fonts import glyph
from priorkit.world.scenes.palette import TINTS, Rgb, Size

Texture = Literal["plain", "gradient", "noise"]
_TILE_FILL = 0.8  # the glyph's longest side as a share of its tile
_TILE_CORNER = 0.12
_BOLDER = 2  # hairlines would fade away when a glyph is scaled down to 14 pixels


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object, before it has a place.

    Attributes:
        entity: what it shows.
        typeface: who drew it.
        colour: the word for its ink; ``ink`` is the shade.
        ink: red, green, blue.
        size: the word for its extent.
        extent: longest side in pixels, of the tile where there is one.
        angle: rotation of the glyph in degrees, counter-clockwise.
        tile: the tint of the tile, or None.
    """

    entity: Entity
    typeface: str
    color: str
    ink: Rgb
    size: Size
    extent: int
    angle: int
    tile: str | None


@dataclass(frozen=True, slots=True)
class PlacedObject:
    """An object with the top left corner of its stamp, in pixels."""

    object: SceneObject
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Background:
    """What is behind the objects; ``clutter`` is the number of thin lines and dots."""

    tint: str
    texture: Texture
    clutter: int
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture in words and numbers: everything that is drawn follows from it."""

    side: int
    background: Background
    objects: tuple[PlacedObject, ...]


@dataclass(frozen=True, slots=True)
class Stamp:
    """An object as pixels, cropped to its mask.

    Attributes:
        glyph: (height, width) uint8, how much of each pixel the glyph covers.
        tile: the same for the tile, or None.
        mask: (height, width) bool, the pixels that count as the object.
    """

    glyph: np.ndarray
    tile: np.ndarray | None
    mask: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        """Derive the mask."""
        object.__setattr__(self, "mask", (self.glyph if self.tile is None else self.tile) >= 128)

    @property
    def height(self) -> int:
        """Rows."""
        return self.mask.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.mask.shape[1]


@lru_cache(maxsize=64)
def stamp(item: SceneObject) -> Stamp:
    """Draw one object; equal objects give the same stamp, which must not be changed."""
    if item.tile is None:
        coverage = _turned(item, item.extent)
        rows, columns = _bounds(coverage >= 128)
        return Stamp(coverage[rows, columns], None)
    square = _tile(item.extent)
    inner = _turned(item, max(1, round(item.extent * _TILE_FILL)))
    top, left = (item.extent - inner.shape[0]) // 2, (item.extent - inner.shape[1]) // 2
    coverage = np.zeros_like(square)
    coverage[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return Stamp(coverage, square)


def _turned(item: SceneObject, extent: int) -> np.ndarray:
    """The glyph, rotated and scaled to the extent: uint8 coverage."""
    master = glyph(item.typeface, item.entity.symbol.character)
    if master is None:
        raise ValueError(f"{item.typeface} does not draw {item.entity.name}")
    turned = master.rotate(item.angle, Image.Resampling.BILINEAR, expand=True) if item.angle else master
    turned = turned.crop(turned.getbbox())
    scale = extent / max(turned.size)
    width, height = (max(1, round(length * scale)) for length in turned.size)
    coverage = np.asarray(turned.resize((width, height), Image.Resampling.BOX), dtype=np.uint16)
    return np.minimum(coverage * _BOLDER, 255).astype(np.uint8)


def _tile(side: int) -> np.ndarray:
    square = Image.new("L", (side, side))
    ImageDraw.Draw(square).rounded_rectangle((0, 0, side - 1, side - 1), round(side * _TILE_CORNER), fill=255)
    return np.asarray(square)


def _bounds(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def masks(scene: Scene) -> np.ndarray:
    """The exact masks of the objects: (objects, side, side) bool."""
    result = np.zeros((len(scene.objects), scene.side, scene.side), dtype=bool)
    for mask, placed in zip(result, scene.objects, strict=True):
        stamped = stamp(placed.object)
        mask[placed.y : placed.y + stamped.height, placed.x : placed.x + stamped.width] = stamped.mask
    return result


def pixel_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The tight box of a (height, width) mask: x, y of the first pixel, x, y after the last one."""
    rows, columns = _bounds(mask)
    return columns.start, rows.start, columns.stop, rows.stop


def render(scene: Scene) -> np.ndarray:
    """Draw the scene: (side, side, 3) uint8."""
    canvas = _backdrop(scene.background, scene.side)
    for placed in scene.objects:
        mask = stamp(placed.object)
        region = canvas[placed.y : placed.y + mask.height, placed.x : placed.x + mask.width]
        if mask.tile is not None and placed.object.tile is not None:
            _blend(region, mask.tile, TINTS[placed.object.tile])
        _blend(region, mask.glyph, placed.object.ink)
    return np.rint(canvas).astype(np.uint8)


def _blend(region: np.ndarray, coverage: np.ndarray, color: Rgb) -> None:
    share = coverage[:, :, None].astype(np.float32) / 255
    region += share * (np.asarray(color, dtype=np.float32) - region)


def _backdrop(background: Background, side: int) -> np.ndarray:
    """The background with its clutter: (side, side, 3) float32 in 0..255."""
    rng = random.Random(background.seed)
    tint = np.asarray(TINTS[background.tint], dtype=np.float32)
    canvas = np.broadcast_to(tint, (side, side, 3)).copy()
    if background.clutter:
        canvas = _clutter(rng, canvas, background)
    if background.texture == "gradient":
        turn = rng.uniform(0, 2 * math.pi)
        ramp = np.linspace(-1, 1, side, dtype=np.float32)
        slope = math.cos(turn) * ramp[None, :] + math.sin(turn) * ramp[:, None]
        canvas += 16 * slope[:, :, None]
    elif background.texture == "noise":
        grain = np.frombuffer(rng.randbytes(side * side), dtype=np.uint8).reshape(side, side, 1)
        canvas += (grain.astype(np.float32) - 127.5) * (12 / 127.5)
    return np.clip(canvas, 0, 255)


def _clutter(rng: random.Random, canvas: np.ndarray, background: Background) -> np.ndarray:
    """Thin lines and dots, a little darker or lighter than the background."""
    picture = Image.fromarray(canvas.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    side = picture.width
    shift = 40 if sum(TINTS[background.tint]) < 3 * 128 else -40
    fill = tuple(min(255, max(0, value + shift)) for value in TINTS[background.tint])
    for _ in range(background.clutter):
        x, y = rng.randrange(side), rng.randrange(side)
        if rng.random() < 0.5:
            turn, length = rng.uniform(0, 2 * math.pi), rng.uniform(0.15, 0.4) * side
            draw.line((x, y, x + length * math.cos(turn), y + length * math.sin(turn)), fill=fill)
        else:
            draw.rectangle((x, y, x + 1, y + 1), fill=fill)
    return np.asarray(picture, dtype=np.float32)
