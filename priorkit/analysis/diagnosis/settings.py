"""Options of ``diagnose``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.resources import files
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import field_validator

from priorkit.analysis.diagnosis.verdicts import DecisionRule
from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
    resamples_option,
)
from priorkit.data.columns import layout_of
from priorkit.data.images.entity_settings import ENTITY_IMAGES, EntityImageSettings
from priorkit.data.images.named_images import images_of_entities, named_images

SHIPPED = "glyph-worlds"
"""The verdict model that ships: fitted to glyph worlds with planted causes (benchmarks/RESULTS.md, 'Planted causes')."""
_FOLDER = "priorkit.analysis.diagnosis"


class DiagnoseSettings(EntityImageSettings, RuntimeSettings, StepSettings):
    """Options of ``priorkit diagnose``."""

    step: ClassVar[str] = "diagnose"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit diagnose tuned world/entity_images/test --out causes",
        "priorkit diagnose tuned world/entity_images/test --facts world/facts.jsonl --encoder encoder "
        "--instructions world/instructions/train.parquet --out all-causes",
    )

    mllm: str = argument(
        "Multimodal model, or an adapter on one.",
        accepts=(
            "mllm",
            "adapter",
            "llm",
            "encoder",
        ),  # the last two are refused with what is wrong in addition
        hub="model",
    )
    images: str = argument(
        f"{ENTITY_IMAGES} Held out: none that the model was trained on.",
        accepts=("world",),
        metavar="IMAGES",
        hub="dataset",
    )
    facts: str | None = option(
        None,
        "Facts about entities: rows of entity, question with {} for the name, true, and false, a list.",
        accepts=("world",),
        metavar="FILE",
    )
    encoder: str | None = option(
        None,
        "The model's encoder before it was put in, with its text tower: adds Rank_e to the evidence. The encoder inside "
        "an image-text-to-text model has no text tower and leaves the probe.",
        accepts=("encoder", "mllm"),
        hub="model",
    )
    instructions: str | None = option(
        None,
        "Instructions that the model was tuned on: adds how often each entity is asked about.",
        accepts=("world",),
        hub="dataset",
        metavar="FILE",
    )
    captions: str | None = option(
        None,
        "Captions that the projector was trained on: adds how often they name each entity.",
        accepts=("world",),
        hub="dataset",
        metavar="FILE",
    )
    control: str | None = option(
        None,
        "File of names of entities all of whose parts work, to compare with; default: those that are named right.",
        accepts=("world",),
        metavar="FILE",
    )
    verdict_model: str | None = option(
        None,
        f"Fitted verdict model (JSON) instead of the ordered tests; {SHIPPED} is the one that ships.",
        accepts=("scores",),
        metavar="FILE",
    )
    truth: str | None = option(
        None,
        "Table with the training data that each entity is in (in_pairs, in_captions, in_text, in_instructions): "
        "compares the verdicts with the planted causes.",
        accepts=("world",),
        metavar="FILE",
    )
    gains: str | None = option(
        None,
        "Gains of the remedies measured on a world (JSON): states the gain to expect with each remedy.",
        accepts=("scores",),
        metavar="FILE",
        advanced=True,
    )
    distractors: int = option(15, "Wrong names that each image's own is compared with.", ge=1)
    works_from: float = option(
        0.5, "Share of an entity's images named right above which it works.", gt=0, lt=1
    )
    false_discovery_rate: float = option(
        0.1, "Accepted share of wrong ones among the entities given to a part.", gt=0, lt=1
    )
    least_probability: float = option(
        0.75,
        "Probability from which an entity counts as working, and is a control, or as failing.",
        ge=0.5,
        lt=1,
        advanced=True,
    )
    question: str = option("What is shown in the image?", "Question for the name.", advanced=True)
    presence_question: str = option(
        "Is there a {} in the image?", "Question whether an image shows a name, {}.", advanced=True
    )
    image_phrase: str = option(
        "one in the image",
        "What a fact's question calls an entity that it does not name.",
        advanced=True,
    )
    fact_images: int = option(2, "Images per entity that facts are asked about.", ge=1, advanced=True)
    template: str = option("a photo of a {}", "Prompt template of Rank_e.", advanced=True)
    layers: int = option(
        8, "Layers of the language model that are probed, evenly spread.", ge=1, advanced=True
    )
    folds: int = option(5, "Folds of an entity's images for the probes.", ge=2, advanced=True)
    max_new_tokens: int = option(16, "Longest written answer in tokens.", ge=1, advanced=True)
    batch_size: int = option(16, "Images or prompts per forward pass.", ge=1)
    resamples: int = resamples_option("images or facts")
    reject_limit: float = reject_limit_option("images and rows")
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")

    @field_validator("verdict_model")
    @classmethod
    def _shipped_file(cls, value: str | None) -> str | None:
        return str(files(_FOLDER) / f"{SHIPPED}.json") if value == SHIPPED else value

    @property
    def rule(self) -> DecisionRule:
        """What a verdict needs."""
        return DecisionRule(self.works_from, self.least_probability, self.false_discovery_rate)

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        return named_images(
            inputs,
            ("images",),
            lambda path, _: images_of_entities(path, self.entity_layout(inputs)),
            lambda _: layout_of(self),
        )
