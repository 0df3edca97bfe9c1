"""Sampling scenes: which objects, how large, in which colors, where."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from priorkit.world.scenes.drawing import Background, PlacedObject, Scene, SceneObject, Stamp, Texture, stamp
from priorkit.world.scenes.entities import Entity
from priorkit.world.scenes.palette import INKS, SIZES, TINTS, Size, is_legible, legible_tints, luminance

Relation = Literal["left of", "right of", "above", "below"]
NormalisedBox = tuple[float, float, float, float]
RELATIONS: tuple[Relation, ...] = ("left of", "right of", "above", "below")

_ANGLE = 8  # degrees of rotation to either side
_SHADE = 10  # jitter of each colour channel to either side
_TEXTURES: tuple[Texture, ...] = ("plain", "plain", "plain", "gradient", "noise")
_CLUTTER = (0, 0, 0, 1, 2)
_TILE_SHARE = 0.2
_TILE_CONTRAST = 12.0
_LEAST_TILE = 0.375  # of the image side; glyphs on a smaller tile cannot be distinguished
_LARGEST = (0.96, 0.62, 0.46, 0.44)  # longest side as a share of the image's, for 1 to 4 objects
_PLACE_TRIES = 40
_LAYOUT_TRIES = 12
_DRIFT = 1 / 16  # of the image side: how far the middle of an object shown close up may be from the image's
_CLOSE_UP_SIZES: tuple[int, ...] = (1, 2, 9)  # weights of small, medium, large
_GAP = 1  # pixels between objects
_CLEARLY = 1.5  # how many times farther apart along the axis of a relation than across it


@dataclass(frozen=True, slots=True)
class SceneSampler:
    """Draws scenes of one size in one set of typefaces.

    Attributes:
        side: of the images, in pixels.
        held_out: whether the held-out typefaces draw instead of the training ones.
        close_up_share: share of the scenes of a single entity that show it large and near the middle.
    """

    side: int
    held_out: bool = False
    close_up_share: float = 1.0

    def scene(
        self,
        rng: random.Random,
        entities: Sequence[Entity],
        sizes: Sequence[Size | None] = (),
        colors: Sequence[str] = (),
    ) -> Scene:
        """A scene that shows these entities without overlap and in different colours, anywhere in the image.

        A single entity is shown close up, mostly large and near the middle, as often as ``close_up_share`` says.

        Args:
            rng: the source of chance.
            entities: one to four, in the order of the objects; the same one may come again.
            sizes: the sizes of the first objects; drawn where missing or None. Two large objects do
                not fit, nor do a large and a medium one.
            colors: the colours of the first objects; the others are drawn.
        """
        close_up = len(entities) == 1 and (self.close_up_share == 1 or rng.random() < self.close_up_share)
        free = [ink for ink in INKS if ink not in colors]
        inks = [*colors, *rng.sample(free, len(entities) - len(colors))]
        background = _background(rng, inks)
        wanted = [*sizes, *[None] * (len(entities) - len(sizes))]
        if wanted == [None]:
            wanted = rng.choices(list(SIZES), _CLOSE_UP_SIZES if close_up else None)
        items = [
            self._object(rng, entity, ink, size, background.tint, _LARGEST[len(entities) - 1])
            for entity, ink, size in zip(entities, inks, wanted, strict=True)
        ]
        if close_up:
            return Scene(self.side, background, (_near_the_middle(rng, items[0], self.side),))
        while True:
            stamps = [stamp(item) for item in items]
            for _ in range(_LAYOUT_TRIES):
                corners = _lay_out(rng, stamps, self.side)
                if corners is not None:
                    placed = [
                        PlacedObject(item, *corner) for item, corner in zip(items, corners, strict=True)
                    ]
                    return Scene(self.side, background, tuple(placed))
            items = [self._shrink(item, size) for item, size in zip(items, wanted, strict=True)]

    def tile_scene(
        self, rng: random.Random, entity: Entity, others: Sequence[Entity], extents: tuple[int, int]
    ) -> Scene:
        """A scene whose first object stands on a tile of a side in this range of pixels.

        The other objects are small; they are left out where they do not fit next to the tile.
        """
        first = self.scene(rng, [entity]).objects[0].object
        background = _background(rng, [first.color])
        extent = rng.randint(*extents)
        tint = _tile_tint(rng, first.color, background.tint)
        big = replace(first, size=_size_word(extent, self.side), extent=extent, tile=tint)
        free = [ink for ink in INKS if ink != first.color and is_legible(ink, background.tint)]
        small = [
            self._object(rng, other, ink, "small", background.tint, 1.0)
            for other, ink in zip(others, rng.sample(free, len(others)), strict=True)
        ]
        for items in ([big, *small], [big]):
            for _ in range(_LAYOUT_TRIES):
                corners = _lay_out(rng, [stamp(item) for item in items], self.side)
                if corners is not None:
                    placed = [
                        PlacedObject(item, *corner) for item, corner in zip(items, corners, strict=True)
                    ]
                    return Scene(self.side, background, tuple(placed))
        raise ValueError(f"a tile of {extent} pixels does not fit into an image of {self.side}")

    def _object(
        self, rng: random.Random, entity: Entity, color: str, size: Size | None, tint: str, largest: float
    ) -> SceneObject:
        fitting: list[Size] = [word for word, (least, _) in SIZES.items() if least <= largest]
        word = size or rng.choice(fitting)
        extent = rng.randint(*_extents(word, self.side, largest))
        tiled = extent >= _LEAST_TILE * self.side and rng.random() < _TILE_SHARE
        faces = entity.symbol.typefaces_test if self.held_out else entity.symbol.typefaces_train
        red, green, blue = (min(255, max(0, value + rng.randint(-_SHADE, _SHADE))) for value in INKS[color])
        return SceneObject(
            entity=entity,
            typeface=rng.choice(faces),
            color=color,
            ink=(red, green, blue),
            size=word,
            extent=extent,
            angle=rng.randint(-_ANGLE, _ANGLE),
            tile=_tile_tint(rng, color, tint) if tiled else None,
        )

    def _shrink(self, item: SceneObject, wanted: Size | None) -> SceneObject:
        """The object at the smallest extent of its size, or small where the size is free; no tile if small."""
        word = wanted or "small"
        extent = _extents(word, self.side, 1.0)[0]
        tile = item.tile if extent >= _LEAST_TILE * self.side else None
        return replace(item, size=word, extent=extent, tile=tile)


def relation_between(first: PlacedObject, second: PlacedObject) -> Relation | None:
    """The relation of the first object to the second one; None where that is not clear.

    Clear means that the boxes are disjoint along one axis, and that the middles are 1.5 times farther
    apart along it than along the other one.
    """
    (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) = box(first), box(second)
    across = abs(left + right - other_left - other_right)
    down = abs(top + bottom - other_top - other_bottom)
    if across >= _CLEARLY * down:
        if right <= other_left:
            return "left of"
        if other_right <= left:
            return "right of"
    if down >= _CLEARLY * across:
        if bottom <= other_top:
            return "above"
        if other_bottom <= top:
            return "below"
    return None


def box(placed: PlacedObject) -> tuple[int, int, int, int]:
    """The object's box in pixels: x, y of the first pixel and x, y after the last one."""
    mask = stamp(placed.object)
    return placed.x, placed.y, placed.x + mask.width, placed.y + mask.height


def normalised_box(placed: PlacedObject, side: int) -> NormalisedBox:
    """The object's box as shares of the image side: x1, y1, x2, y2."""
    left, top, right, bottom = box(placed)
    return left / side, top / side, right / side, bottom / side


def area(placed: PlacedObject, side: int) -> float:
    """The share of the image's pixels that the mask of the object covers."""
    return float(stamp(placed.object).mask.sum()) / side**2


def _near_the_middle(rng: random.Random, item: SceneObject, side: int) -> PlacedObject:
    mask, drift = stamp(item), round(_DRIFT * side)

    def place(length: int) -> int:
        return min(max(0, (side - length) // 2 + rng.randint(-drift, drift)), side - length)

    return PlacedObject(item, place(mask.width), place(mask.height))


def _background(rng: random.Random, inks: Sequence[str]) -> Background:
    tint = rng.choice(legible_tints(inks))
    return Background(tint, rng.choice(_TEXTURES), rng.choice(_CLUTTER), rng.getrandbits(32))


def _tile_tint(rng: random.Random, ink: str, ground: str) -> str:
    """A tint on which the ink is legible and that contrasts with the background."""
    return rng.choice(
        [
            tint
            for tint, shade in TINTS.items()
            if is_legible(ink, tint) and abs(luminance(shade) - luminance(TINTS[ground])) >= _TILE_CONTRAST
        ]
    )


def _extents(size: Size, side: int, largest: float) -> tuple[int, int]:
    """The least and the greatest longest side in pixels."""
    least, most = SIZES[size]
    return round(least * side), max(round(least * side), int(min(most, largest) * side))


def _size_word(extent: int, side: int) -> Size:
    """The size whose range begins last before the extent."""
    words: list[Size] = [word for word, (least, _) in SIZES.items() if round(least * side) <= extent]
    return words[-1]


def _lay_out(rng: random.Random, stamps: Sequence[Stamp], side: int) -> list[tuple[int, int]] | None:
    """Random corners at which the stamps do not touch, the largest first; None where that failed."""
    corners: dict[int, tuple[int, int]] = {}
    for index in sorted(
        range(len(stamps)), key=lambda position: -stamps[position].width * stamps[position].height
    ):
        mask = stamps[index]
        for _ in range(_PLACE_TRIES):
            x, y = rng.randint(0, side - mask.width), rng.randint(0, side - mask.height)
            if all(
                x + mask.width + _GAP <= left
                or left + stamps[other].width + _GAP <= x
                or y + mask.height + _GAP <= top
                or top + stamps[other].height + _GAP <= y
                for other, (left, top) in corners.items()
            ):
                corners[index] = x, y
                break
        else:
            return None
    return [corners[index] for index in range(len(stamps))]
