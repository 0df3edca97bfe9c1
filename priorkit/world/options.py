"""Options of a glyph world: its sizes and frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import model_validator

from priorkit.core.options.box_text import BoxTextSettings
from priorkit.core.options.settings import option, redefault
from priorkit.core.options.values import NamedNumbers, Numbers

LEAST_NAMES = 6  # a question needs up to five different names and four categories
MOST_OBJECTS = 4  # more do not fit into a scene

# Names are the most frequent: a small model that cannot name what an image shows learns nothing else from it either.
QUESTION_SHARES: Mapping[str, float] = MappingProxyType(
    {
        "naming": 60,
        "naming-by-color": 4,
        "background": 4,
        "color": 8,
        "size": 3,
        "relation": 4,
        "counting": 3,
        "comparison": 2,
        "comparison-by-place": 2,
        "existence": 3,
        "existence-by-color": 2,
        "existence-by-size": 2,
        "existence-by-place": 2,
        "grounding": 4,
        "knowledge": 3,
    }
)
"""Weights of the kinds of questions in the instructions."""


class WorldOptions(BoxTextSettings):
    """Sizes and frequencies of one world; equal options give equal bytes."""

    group: ClassVar[str] = "the world"

    seed: int = option(42, "Seed of everything random; the same seed gives the same bytes.", ge=0)
    image_size: int = option(48, "Side of the square images in pixels.", ge=48)
    strong: int = option(170, "Entities that are frequent in the encoder's pairs.", ge=LEAST_NAMES)
    weak: int = option(45, "Entities that are rare in the encoder's pairs.", ge=0)
    none: int = option(55, "Entities that are absent from the encoder's pairs.", ge=0)
    name_words: int = option(
        6,
        "Most words in a name; short names take fewer tokens, and fewer symbols have one.",
        ge=1,
        advanced=True,
    )
    text_share: float = option(0.75, "Share of entities that the text sources name.", ge=0, le=1)
    instructed_share: float = option(
        0.85,
        "Share of entities that instructions show and name.",
        ge=0,
        le=1,
        advanced=True,
    )
    captioned_share: float | None = option(
        None,
        "Share of entities that captions show and name, independent of the others; default: those of the instructions.",
        ge=0,
        le=1,
        advanced=True,
    )
    pairs: int = option(14_000, "Training image-text pairs for the encoder.", ge=1)
    pairs_test: int = option(600, "Held-out pairs, of strong entities only.", ge=1, advanced=True)
    weak_pairs: int = option(1, "Pairs that show each weak entity.", ge=1, advanced=True)
    strong_spread: float = option(
        4.0,
        "How many times more often the most frequent strong entity is drawn than the least.",
        ge=1,
        advanced=True,
    )
    objects: Numbers = option(
        (85, 15),
        "Weights of pairs and captions that show one, two, three and four objects.",
        metavar="W",
        advanced=True,
    )
    copy_share: float = option(
        0.0,
        "Share of the objects after the first that show the same entity as the one before.",
        ge=0,
        lt=1,
        advanced=True,
    )
    close_up_share: float = option(
        1.0,
        "Share of the single objects that are large and near the middle; the others have any size and place.",
        ge=0,
        le=1,
        advanced=True,
    )
    entity_images_train: int = option(20, "Images per entity in training typefaces.", ge=1)
    entity_images_test: int = option(6, "Images per entity in held-out typefaces.", ge=1, advanced=True)
    captions: int = option(4_000, "Image-caption conversations for aligning a projector.", ge=1)
    instructions: int = option(8_000, "Conversations for instruction tuning.", ge=1)
    questions_per_image: int = option(
        1, "Most questions that a conversation asks about its image.", ge=1, advanced=True
    )
    question_share: NamedNumbers = option(
        {},
        "Weights of the kinds of questions in the instructions, "
        f"{', '.join(QUESTION_SHARES)}; default: mostly naming.",
        metavar="KIND=W",
        advanced=True,
    )
    listing_share: float = option(
        0.0,
        "Share of the captions, and of the documents of the visual text, that list all objects with their boxes; such "
        "a document also has questions that its list answers.",
        ge=0,
        le=1,
        advanced=True,
    )
    regions: int = option(
        0,
        "Images with an expression and its box in RefCOCO's form, for region-level tuning.",
        ge=0,
        advanced=True,
    )
    text_only_share: float = option(
        0.5,
        "Share of the instructions about knowledge that come without an image.",
        ge=0,
        le=1,
        advanced=True,
    )
    naming_questions: int = option(4, "Benchmark questions for the name, per entity.", ge=1, advanced=True)
    naming_distractors: int = option(4, "Wrong names in a naming question.", ge=1, advanced=True)
    benchmark_questions: int = option(200, "Questions in each other benchmark.", ge=1)
    annotated: int = option(500, "Scenes with instance masks, over three bins of area.", ge=3, advanced=True)
    box_decimals: int = redefault(BoxTextSettings, "box_decimals", 2)
    text_characters: int = option(800_000, "Characters in each generated text source.", ge=1)
    python_characters: int = option(
        2_000_000,
        "Characters in each text source taken from Python's standard library.",
        ge=0,
        advanced=True,
    )
    heldout_share: float = option(
        0.05,
        "Share of each text source that is held out, in addition.",
        ge=0,
        le=1,
        advanced=True,
    )

    @model_validator(mode="after")
    def _makes_a_world(self) -> WorldOptions:
        problems: list[str] = []
        if self.weak * self.weak_pairs > self.pairs:
            problems.append(
                f"{self.weak} weak entities with {self.weak_pairs} pairs each need more than {self.pairs} pairs: "
                "raise pairs or lower weak_pairs"
            )
        if self.naming_distractors >= self.entities:
            problems.append(f"{self.naming_distractors} wrong names need more than {self.entities} entities")
        both = self.text_share * self.instructed_share * self.strong
        if both < LEAST_NAMES:
            problems.append(
                f"{both:.1f} strong entities are in the text and the instructions, at least {LEAST_NAMES} must be: "
                "raise text_share, instructed_share or strong"
            )
        if self.captioned_share is not None and self.captioned_share * self.entities < LEAST_NAMES:
            problems.append(
                f"captions show {self.captioned_share * self.entities:.1f} entities, at least {LEAST_NAMES} must be "
                "shown: raise captioned_share"
            )
        if not 1 <= len(self.objects) <= MOST_OBJECTS or not all(weight >= 0 for weight in self.objects):
            problems.append(f"objects must be 1 to {MOST_OBJECTS} weights from 0, got {list(self.objects)}")
        elif not sum(self.objects):
            problems.append("the weights of objects are all 0")
        if unknown := sorted(set(self.question_share) - set(QUESTION_SHARES)):
            problems.append(
                f"no question is of the kind {', '.join(unknown)}; the kinds are {', '.join(QUESTION_SHARES)}"
            )
        if any(weight < 0 for weight in self.question_share.values()) or not sum(
            self.question_weights.values()
        ):
            problems.append("the weights of questions must not be negative, and not all 0")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def question_weights(self) -> Mapping[str, float]:
        """The weight of each kind of question; kinds that are not named have none once one is."""
        return self.question_share or QUESTION_SHARES

    @property
    def entities(self) -> int:
        """Number of entities in all."""
        return self.strong + self.weak + self.none
