"""The entities: their symbols and names, and how well each one is known.

Independent draws fix what a model can know about an entity by construction: its frequency in the encoder's
pairs (``prior``), and whether the text sources name it (``in_text``), the instructions (``in_instructions``) and
the captions (``in_captions``) show it.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal, TypeVar

import numpy as np
import tomli

from priorkit.core.errors import UsageError
from priorkit.world.options import WorldOptions
from priorkit.world.scenes.fonts import TEST_TYPEFACES, TRAIN_TYPEFACES, has_glyph, raster
from priorkit.world.scenes.palette import NUMBERS

Prior = Literal["strong", "weak", "none"]
PRESENCE = ("in_pairs", "in_text", "in_instructions", "in_captions")
"""Columns of ``entities.parquet``: which training data an entity is in."""

_T = TypeVar("_T")

_LEAST_TYPEFACES = 3
_SIMILAR = 0.8  # overlap (intersection over union of grey masks) from which two symbols are one
_MASK_PIXELS = 16  # about the size of the smallest symbol in a scene


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of symbol: its plural name and what it is used for ("to ...")."""

    name: str
    use: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbol that can be an entity."""

    name: str
    character: str
    category: Category
    typefaces_train: tuple[str, ...]
    typefaces_test: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A symbol and how well it is known.

    Attributes:
        symbol: what it is.
        prior: frequency in the encoder's pairs.
        in_text: whether the text sources name it.
        in_instructions: whether instructions show and name it.
        in_captions: whether captions for alignment show and name it.
    """

    symbol: Symbol
    prior: Prior
    in_text: bool
    in_instructions: bool
    in_captions: bool

    @property
    def name(self) -> str:
        """The unique name."""
        return self.symbol.name

    @property
    def category(self) -> Category:
        """The category of the symbol."""
        return self.symbol.category

    @property
    def presence(self) -> dict[str, bool]:
        """Which training data it is in, by column of ``entities.parquet``."""
        shown = (self.prior != "none", self.in_text, self.in_instructions, self.in_captions)
        return dict(zip(PRESENCE, shown, strict=True))


def readable_name(character: str, ending: str = "") -> str:
    """The official Unicode name as ordinary words.

    Lower case; hyphens become spaces, digits become words, the word "letter" is dropped;
    the ending is added unless the name has it.

    >>> readable_name("♛"), readable_name("ω"), readable_name("⚀")
    ('black chess queen', 'greek small omega', 'die face one')
    >>> readable_name("∀", "sign"), readable_name("÷", "sign")
    ('for all sign', 'division sign')
    """
    words = unicodedata.name(character).lower().replace("-", " ").split()
    spelled = (NUMBERS[int(word)] if word.isdecimal() and len(word) == 1 else word for word in words)
    name = " ".join(word for word in spelled if word != "letter")
    return name if name.endswith(ending) else f"{name} {ending}"


@cache
def catalogue() -> tuple[Symbol, ...]:
    """All symbols that typefaces draw, that look different and have different names."""
    table = tomli.loads(files("priorkit.world.scenes").joinpath("symbols.toml").read_text(encoding="utf-8"))
    symbols = [
        Symbol(
            readable_name(character, entry.get("ending", "")),
            character,
            Category(entry["name"], entry["use"]),
            tuple(face for face in TRAIN_TYPEFACES if has_glyph(face, character)),
            tuple(face for face in TEST_TYPEFACES if has_glyph(face, character)),
        )
        for entry in table["category"]
        for character in entry["symbols"]
    ]
    drawn = [
        symbol
        for symbol in symbols
        if symbol.typefaces_train
        and symbol.typefaces_test
        and len(symbol.typefaces_train) + len(symbol.typefaces_test) >= _LEAST_TYPEFACES
    ]
    named = list({symbol.name: symbol for symbol in reversed(drawn)}.values())[::-1]
    twins = {second for _, second in similar_pairs(named)}
    return tuple(symbol for symbol in named if symbol.name not in twins)


def similar_pairs(symbols: list[Symbol]) -> list[tuple[str, str]]:
    """Pairs of names whose glyphs are nearly the same in some typeface of either side.

    The grey masks, each scaled to fill a square of 16 pixels, are compared for every pair in the
    upright training and held-out typefaces; alike means an intersection over union above 0.8.
    """
    pairs: dict[tuple[str, str], None] = {}
    for faces in (("DejaVuSans", "STIXGeneral"), ("DejaVuSansMono", "STIXGeneralBol")):
        masks = np.stack([_grey_mask(symbol, faces) for symbol in symbols])
        for index, mask in enumerate(masks):
            others = masks[index + 1 :]
            shared = np.minimum(mask, others).sum(axis=1)
            overlap = shared / np.maximum(np.maximum(mask, others).sum(axis=1), 1e-6)
            for offset in np.flatnonzero(overlap > _SIMILAR):
                pairs[symbols[index].name, symbols[index + 1 + int(offset)].name] = None
    return list(pairs)


def _grey_mask(symbol: Symbol, faces: tuple[str, ...]) -> np.ndarray:
    typefaces = symbol.typefaces_train + symbol.typefaces_test
    face = next((face for face in faces if face in typefaces), typefaces[0])
    return raster(face, symbol.character, _MASK_PIXELS).ravel()


def choose_entities(options: WorldOptions) -> tuple[Entity, ...]:
    """Draw the entities of a world, in the order of the catalogue.

    The groups of prior are stratified over the categories. ``in_text`` is drawn within each group,
    ``in_instructions`` within both parts of it, and ``in_captions`` within all four, unless it is the same: all are
    independent by construction.

    Raises:
        UsageError: there are fewer symbols with names this short than entities.
    """
    symbols = tuple(symbol for symbol in catalogue() if len(symbol.name.split()) <= options.name_words)
    if options.entities > len(symbols):
        raise UsageError(
            f"expected at most {len(symbols)} entities, the symbols of the catalogue with names of up to "
            f"{options.name_words} words, got {options.entities}",
            where="strong + weak + none",
        )
    rng = random.Random(f"entities/{options.seed}")
    chosen = _stratified(rng, symbols)[: options.entities]
    counts: tuple[tuple[Prior, int], ...] = (
        ("strong", options.strong),
        ("weak", options.weak),
        ("none", options.none),
    )
    priors = _spread(counts)
    drawn: list[Entity] = []
    for prior, _ in counts:
        group = [symbol for symbol, symbol_prior in zip(chosen, priors, strict=True) if symbol_prior == prior]
        rng.shuffle(group)
        cut = round(options.text_share * len(group))
        for in_text, members in ((True, group[:cut]), (False, group[cut:])):
            instructed = round(options.instructed_share * len(members))
            for in_instructions, cell in ((True, members[:instructed]), (False, members[instructed:])):
                if options.captioned_share is None:
                    captioned = len(cell) * in_instructions
                else:
                    captioned = round(options.captioned_share * len(cell))
                drawn += [
                    Entity(symbol, prior, in_text, in_instructions, index < captioned)
                    for index, symbol in enumerate(cell)
                ]
    rank_of = {symbol.name: index for index, symbol in enumerate(symbols)}
    return tuple(sorted(drawn, key=lambda entity: rank_of[entity.name]))


def _stratified(rng: random.Random, symbols: tuple[Symbol, ...]) -> list[Symbol]:
    """An order in which every stretch holds the categories in about their shares."""
    groups: dict[str, list[Symbol]] = defaultdict(list)
    for symbol in symbols:
        groups[symbol.category.name].append(symbol)
    keyed: list[tuple[float, Symbol]] = []
    for group in groups.values():
        rng.shuffle(group)
        start = rng.random()
        keyed += [((index + start) / len(group), symbol) for index, symbol in enumerate(group)]
    return [symbol for _, symbol in sorted(keyed, key=lambda pair: pair[0])]


def _spread(counts: tuple[tuple[_T, int], ...]) -> list[_T]:
    """Each value as often as its count, evenly spread over the list."""
    keyed = [((index + 0.5) / count, value) for value, count in counts for index in range(count)]
    return [value for _, value in sorted(keyed, key=lambda pair: pair[0])]
