"""Options of ``rank-e``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal

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

PHOTO = ("a photo of a {}",)


class RankSettings(EntityImageSettings, RuntimeSettings, StepSettings):
    """Options of ``priorkit rank-e``."""

    step: ClassVar[str] = "rank-e"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit rank-e encoder world/entity_images/test --out ranks",
        "priorkit rank-e openai/clip-vit-base-patch32 birds/ --candidates species.txt "
        '--template "a photo of a {}, a kind of bird" --out bird-ranks',
    )

    encoder: str = argument(
        "Image encoder, or an image-text-to-text model for the encoder inside it; ranking names needs a text tower "
        "(CLIP, SigLIP ...).",
        accepts=("encoder", "mllm"),
        hub="model",
    )
    images: str = argument(
        ENTITY_IMAGES,
        accepts=("world", "entity-images"),
        metavar="IMAGES",
        hub="dataset",
    )
    by: Literal["names", "centroids"] = option(
        "names",
        "Rank images by candidate names, or by class centroids of held-out folds (no text tower needed).",
    )
    candidates: str | None = option(
        None,
        "File of further candidate names: a name per line, or JSON Lines or parquet with a column of names.",
        accepts=("world",),
        metavar="FILE",
    )
    template: tuple[str, ...] = option(PHOTO, "Prompt template; {} is the entity name; repeat to ensemble.")
    template_file: str | None = option(
        None,
        "File of prompt templates instead of --template, one per line.",
        accepts=("world",),
        metavar="FILE",
    )
    reverse: bool = option(
        False, "Also rank the images for each name: an entity's images among those of all others."
    )
    folds: int = option(5, "Folds of an entity's images, for --by centroids.", ge=2, advanced=True)
    batch_size: int = option(64, "Images or texts per forward pass.", ge=1)
    confusions: int = option(3, "Top-k confused names per entity.", ge=0, metavar="K", advanced=True)
    resamples: int = resamples_option("entities")
    reject_limit: float = reject_limit_option("images")
    features: str | None = option(
        None,
        "Folder of the image feature cache; default: the user's cache folder.",
        metavar="DIR",
        changes_result=False,
        advanced=True,
    )
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        return named_images(
            inputs,
            ("images",),
            lambda path, _: images_of_entities(path, self.entity_layout(inputs)),
            lambda _: layout_of(self),
        )
