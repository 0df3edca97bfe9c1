"""Options of a glyph world: its sizes and frequencies."""

from __future__ import annotations

from typing import ClassVar

from pydantic import model_validator

from priorkit.core.options.box_text import BoxTextSettings
from priorkit.core.options.settings import option, redefault

LEAST_NAMES = 6  # a question needs up to five different names and four categories


class WorldOptions(BoxTextSettings):
    """Sizes and frequencies of one world; equal options give equal bytes."""

    group: ClassVar[str] = "the world"

    seed: int = option(42, "Seed of everything random; the same seed gives the same bytes.", ge=0)
    image_size: int = option(48, "Side of the square images in pixels.", ge=48)
    strong: int = option(170, "Entities that are frequent in the encoder's pairs.", ge=LEAST_NAMES)
    weak: int = option(45, "Entities that are rare in the encoder's pairs.", ge=0)
    none: int = option(55, "Entities that are absent from the encoder's pairs.", ge=0)
    told_share: float = option(0.75, "Share of entities that the text sources name.", ge=0, le=1)
    instructed_share: float = option(
        0.85,
        "Share of entities that captions and instructions show and name.",
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
    two_entity_share: float = option(
        0.15, "Share of pairs that show two entities.", ge=0, le=1, advanced=True
    )
    entity_images_train: int = option(20, "Images per entity in training typefaces.", ge=1)
    entity_images_test: int = option(6, "Images per entity in held-out typefaces.", ge=1, advanced=True)
    captions: int = option(4_000, "Image-caption conversations for aligning a projector.", ge=1)
    instructions: int = option(8_000, "Conversations for instruction tuning.", ge=1)
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
        both = self.told_share * self.instructed_share * self.strong
        if both < LEAST_NAMES:
            problems.append(
                f"{both:.1f} strong entities are in the text and the instructions, at least {LEAST_NAMES} must be: "
                "raise told_share, instructed_share or strong"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def entities(self) -> int:
        """Number of entities in all."""
        return self.strong + self.weak + self.none
