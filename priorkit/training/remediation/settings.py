"""Options of encoder remediation: the loss's terms, what trains, what is measured."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator

from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    Settings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.options.values import Count, Numbers, Words, split_commas
from priorkit.data.columns import CAPTIONS, TextColumnSettings, layout_of
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.entity_settings import ENTITY_IMAGES, EntityImageSettings
from priorkit.data.images.named_images import images_of_entities, images_of_pairs, named_images
from priorkit.training.engine.settings import CompileSettings, TrainingSettings
from priorkit.training.objectives.settings import GradientCacheSettings

Layers = Annotated[tuple[int, ...], BeforeValidator(split_commas)]

CONTRASTIVE = Literal["cross-entropy", "infonce", "sigmoid"]
"""Cross-entropy over all names; InfoNCE within the batch, in both directions; a sigmoid for every name."""


@dataclass(frozen=True, slots=True)
class TrainableParameters:
    """The parameters of an encoder that are trained.

    Attributes:
        last_blocks: number of the image tower's last blocks; 0 for all of the tower.
        lora_rank: rank of LoRA on the image tower's blocks; 0 trains the weights themselves.
        text: whether the text tower is trained as well.
    """

    last_blocks: int = 0
    lora_rank: int = 0
    text: bool = False

    def __str__(self) -> str:
        tower = f"the last {self.last_blocks} blocks" if self.last_blocks else "the image tower"
        if self.lora_rank:
            tower = f"LoRA of rank {self.lora_rank} on the image tower"
        return tower + (" and the text tower" if self.text else "")


class TermSettings(Settings):
    """The terms of the loss, each with its weight; 0 leaves a term out."""

    group: ClassVar[str] = "terms"

    contrastive: CONTRASTIVE = option(
        "cross-entropy",
        "Alignment of images with names: cross-entropy over all names, InfoNCE within the batch with all "
        "images of an entity as positives, or a sigmoid for every name.",
    )
    contrastive_weight: float = option(
        1.0, "Weight of the alignment of images with entity names.", ge=0, advanced=True
    )
    teacher: tuple[str, ...] = option(
        (),
        "Encoder whose image features are distilled, at its own resolution; repeat for several.",
        accepts=("encoder",),
        hub="model",
    )
    teacher_weight: Numbers = option(
        (),
        "Weight of each teacher's feature distillation loss, in order; default 1.",
        advanced=True,
    )
    teacher_views: Count = option(
        4,
        "Augmented views per image, fixed so that the teachers' features can be cached.",
        ge=1,
        advanced=True,
    )
    relational_weight: float = option(
        0.0,
        "Weight, for each teacher, of matching its similarities between the batch's images.",
        ge=0,
        advanced=True,
    )
    relational_temperature: float = option(
        0.1,
        "Softmax temperature of those similarities; lower values emphasize the nearest images.",
        gt=0,
        advanced=True,
    )
    teacher_patch_weight: Numbers = option(
        (0.0,),
        "Weight of matching the teachers' patch tokens, resampled where grids differ: one for all, or one per teacher.",
        advanced=True,
    )
    teacher_logit_weight: Numbers = option(
        (0.0,),
        "Weight of matching the teachers' distributions over the names, for teachers with a text tower: one for all, "
        "or one per teacher.",
        advanced=True,
    )
    teacher_layer: int = option(
        -2,
        "Hidden state of the teachers whose patch tokens are matched by those of --feature-layer.",
        advanced=True,
    )
    keep_weight: float = option(
        1.0, "Weight of keeping the patch tokens close to the original encoder's.", ge=0
    )
    keep_class_weight: float = option(
        0.0,
        "Weight of keeping the class token too, for multimodal models that read it (align --class-token).",
        ge=0,
        advanced=True,
    )
    keep_pooled_weight: float | None = option(
        None,
        "Weight of keeping the pooled feature, which the alignment with names must move; default: --keep-weight.",
        ge=0,
        advanced=True,
    )
    keep_layer: Layers = option(
        (),
        "Hidden states whose tokens are kept, averaged over them; default: --feature-layer.",
        metavar="N",
        advanced=True,
    )
    feature_layer: int = option(-2, "Hidden state that the multimodal model reads, as in LLaVA.")
    replay: str | None = option(
        None,
        "General image-text pairs trained on in addition to the entities, so that the rest is kept.",
        accepts=("world",),
        hub="dataset",
        metavar="PAIRS",
    )
    replay_weight: float = option(
        1.0, "Weight of the contrastive loss on the replayed pairs.", ge=0, advanced=True
    )
    replay_per_image: int = option(1, "Replayed pairs per entity image.", ge=1, advanced=True)

    @property
    def kept_layers(self) -> tuple[int, ...]:
        """The hidden states whose tokens the keep term compares; empty where it compares none."""
        return (
            (self.keep_layer or (self.feature_layer,)) if self.keep_weight or self.keep_class_weight else ()
        )

    @property
    def matches_patches(self) -> bool:
        """Whether patch tokens of a teacher are part of the loss."""
        return bool(self.teacher) and any(self.teacher_patch_weight)

    @property
    def matches_logits(self) -> bool:
        """Whether a teacher's distribution over names is part of the loss."""
        return bool(self.teacher) and any(self.teacher_logit_weight)

    @property
    def read_layers(self) -> tuple[int, ...]:
        """The hidden states of the student that the loss reads."""
        return (*self.kept_layers, *((self.feature_layer,) if self.matches_patches else ()))

    @property
    def replays(self) -> bool:
        """Whether general pairs are part of the loss."""
        return bool(self.replay and self.replay_weight)


class TrainableSettings(Settings):
    """What is trained."""

    group: ClassVar[str] = "trained weights"

    trainable: str | None = option(
        None,
        "Trainable parameters of the image tower: full, last-K (its last K blocks) or lora; default full, or "
        "lora with --lora-rank.",
        metavar="full|last-K|lora",
        advanced=True,
    )
    lora_rank: int = option(
        0, "Rank of LoRA on the image tower, merged at the end; 16 with --trainable lora.", ge=0
    )
    train_text: bool = option(
        False,
        "Train the text tower too; Rank_e before and after is then not comparable.",
        advanced=True,
    )


class TradeOffSettings(Settings):
    """What is measured, and how much of the change is kept."""

    group: ClassVar[str] = "trade-off"

    held_out: str | None = option(
        None,
        "Held-out entity images for Rank_e before and after.",
        accepts=("world", "entity-images"),
        hub="dataset",
        metavar="IMAGES",
        advanced=True,
    )
    held_out_share: float = option(
        0.0,
        "Share of each entity's images to hold out, instead of --held-out.",
        ge=0,
        lt=1,
        advanced=True,
    )
    off_domain: str | None = option(
        None,
        "General pairs, not trained on; their retrieval (MRR) measures the cost of remediation elsewhere.",
        accepts=("world",),
        hub="dataset",
        metavar="PAIRS",
        advanced=True,
    )
    interpolate: Numbers = option(
        (1.0,),
        "Interpolation coefficients between the original (0) and the tuned weights (1) to measure at (WiSE-FT).",
        advanced=True,
    )
    keep_share: float | None = option(
        None,
        "Interpolation coefficient that is saved; default the largest of --interpolate.",
        ge=0,
        le=1,
        advanced=True,
    )

    @property
    def saved_share(self) -> float:
        """The interpolation coefficient of the encoder that is saved."""
        return max(self.interpolate) if self.keep_share is None else self.keep_share

    @property
    def measures(self) -> bool:
        """Whether there are images or pairs to measure on."""
        return bool(self.held_out or self.held_out_share or self.off_domain)


class RemediationSettings(
    GradientCacheSettings,
    TermSettings,
    TrainableSettings,
    TradeOffSettings,
    AugmentationSettings,
    TrainingSettings,
):
    """Options of remediation without its inputs."""

    group: ClassVar[str] = "terms"

    @property
    def trainable_parameters(self) -> TrainableParameters:
        """The parameters to train.

        Raises:
            ValueError: ``--trainable`` is not one of its values.
        """
        choice = self.trainable or ("lora" if self.lora_rank else "full")
        if choice == "lora":
            return TrainableParameters(lora_rank=self.lora_rank or 16, text=self.train_text)
        match = re.fullmatch(r"full|last-([1-9][0-9]*)", choice)
        if match is None:
            raise ValueError(f"expected full, lora or last-K such as last-4, got '{choice}'")
        return TrainableParameters(last_blocks=int(match[1] or 0), text=self.train_text)


class DistillEncoderSettings(
    EntityImageSettings, TextColumnSettings, RemediationSettings, CompileSettings, StepSettings
):
    """Options of ``priorkit distill-encoder``."""

    step: ClassVar[str] = "distill-encoder"
    kind: ClassVar[str] = "encoder"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit distill-encoder encoder world/entity_images/train --replay world/pairs/train.parquet "
        "--held-out world/entity_images/test --off-domain world/pairs/test.parquet "
        "--interpolate 0,0.25,0.5,0.75,1 --steps 400 --out remediated",
        "priorkit distill-encoder openai/clip-vit-large-patch14 birds/ --teacher facebook/metaclip-h14 "
        "--lora-rank 16 --keep-weight 1 --held-out-share 0.2 --epochs 5 --out birds-encoder",
    )

    encoder: str = argument("Encoder to remediate.", accepts=("encoder",), hub="model")
    images: str = argument(
        ENTITY_IMAGES,
        accepts=("world", "entity-images"),
        metavar="IMAGES",
        hub="dataset",
    )
    names: str | None = option(
        None,
        "File of further candidate names, one per line.",
        accepts=("world",),
        metavar="FILE",
        advanced=True,
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",),
        "Prompt template; {} is the entity name; repeat to ensemble.",
        advanced=True,
    )
    entity_names: str | None = redefault(EntityImageSettings, "entity_names", None, advanced=True)
    text_column: Words = redefault(TextColumnSettings, "text_column", CAPTIONS, advanced=True)
    augment_shift: int = redefault(AugmentationSettings, "augment_shift", 3)
    reject_limit: float = reject_limit_option("images")
    batch_size: int = redefault(TrainingSettings, "batch_size", 128)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.05)

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        entities = named_images(
            inputs,
            ("images", "held_out"),
            lambda path, _: images_of_entities(path, self.entity_layout(inputs)),
            lambda _: layout_of(self),
        )
        pairs = named_images(inputs, ("replay", "off_domain"), images_of_pairs, lambda _: layout_of(self))
        return {**entities, **pairs}
