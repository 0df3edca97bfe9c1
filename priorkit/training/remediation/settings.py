"""Options of encoder remediation: its terms, what trains, what is measured; and what does not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from priorkit.core.errors import Problems, UsageError
from priorkit.core.settings import Settings, option
from priorkit.core.values import Count, Numbers
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.objectives.settings import GradientCacheSettings

CONTRASTIVE = Literal["cross-entropy", "infonce", "sigmoid"]
"""Over all names; in both directions within the batch; a yes or no for every name."""


@dataclass(frozen=True, slots=True)
class TrainableParameters:
    """What of an encoder trains.

    Attributes:
        last_blocks: how many of the image tower's last blocks; 0 for all of the tower.
        lora_rank: rank of LoRA on the image tower's blocks; 0 trains the weights themselves.
        text: whether the text tower trains as well.
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
        "Weight of each teacher's feature term, in order; 1 where not given.",
        advanced=True,
    )
    teacher_views: Count = option(
        4,
        "Augmented views of each image, fixed so that the teachers' features can be kept.",
        ge=1,
        advanced=True,
    )
    relational_weight: float = option(
        0.0,
        "Weight, for each teacher, of the likenesses between images as it sees them.",
        ge=0,
        advanced=True,
    )
    relational_temperature: float = option(
        0.1,
        "Temperature of those likenesses; low ones look at the nearest images alone.",
        gt=0,
        advanced=True,
    )
    keep_weight: float = option(
        1.0, "Weight of staying close to the original encoder's patch tokens and feature.", ge=0
    )
    feature_layer: int = option(-2, "Hidden state that the multimodal model reads, as in LLaVA.")
    replay: str | None = option(
        None,
        "General image-text pairs replayed beside the entities.",
        accepts=("world",),
        hub="dataset",
        metavar="PAIRS",
    )
    replay_weight: float = option(
        1.0, "Weight of the contrastive loss on the replayed pairs.", ge=0, advanced=True
    )
    replay_per_image: int = option(1, "Replayed pairs per entity image.", ge=1, advanced=True)

    @property
    def teacher_weights(self) -> tuple[float, ...]:
        """``w_m`` of each teacher."""
        return self.teacher_weight or (1.0,) * len(self.teacher)

    @property
    def replays(self) -> bool:
        """Whether general pairs take part in the loss."""
        return bool(self.replay and self.replay_weight)


class TrainableSettings(Settings):
    """What trains."""

    group: ClassVar[str] = "trained weights"

    trainable: str | None = option(
        None,
        "What of the image tower trains: full, last-K (its last K blocks) or lora; full where neither this "
        "nor --lora-rank is given.",
        metavar="full|last-K|lora",
        advanced=True,
    )
    lora_rank: int = option(
        0, "Rank of LoRA on the image tower, merged at the end; 16 with --trainable lora.", ge=0
    )
    train_text: bool = option(
        False, "Train the text tower too; Rank_e is then no longer comparable.", advanced=True
    )


class TradeOffSettings(Settings):
    """What is measured, and how far to go from the original encoder."""

    group: ClassVar[str] = "trade-off"

    held_out: str | None = option(
        None,
        "Entity images not trained on, for Rank_e before and after.",
        accepts=("world",),
        hub="dataset",
        metavar="IMAGES",
        advanced=True,
    )
    held_out_share: float = option(
        0.0,
        "Share of each entity's images held out of training in place of --held-out.",
        ge=0,
        lt=1,
        advanced=True,
    )
    off_domain: str | None = option(
        None,
        "General pairs, not trained on, whose retrieval tells what remediation costs elsewhere.",
        accepts=("world",),
        hub="dataset",
        metavar="PAIRS",
        advanced=True,
    )
    interpolate: Numbers = option(
        (1.0,),
        "Shares of the tuned weights, the rest being the original's (WiSE-FT), at which gain and cost are "
        "measured.",
        advanced=True,
    )
    keep_share: float | None = option(
        None,
        "The share that is saved; the largest of --interpolate where not given.",
        ge=0,
        le=1,
        advanced=True,
    )

    @property
    def saved_share(self) -> float:
        """The share of the tuned weights in the encoder that is saved."""
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
    """All options of remediation; the checks look at several groups together."""

    group: ClassVar[str] = "terms"

    def conflicts(self, layers: int) -> Problems:
        """Settings that do not go together.

        Args:
            layers: number of layers of the image tower; 0 where it has none that are numbered.
        """
        problems = Problems(UsageError)
        teachers, weights = len(self.teacher), len(self.teacher_weight)
        if layers and not -layers - 1 <= self.feature_layer <= layers:
            problems.add(
                f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
                where="--feature-layer",
            )
        if weights not in (0, teachers):
            problems.add(
                f"{weights} weights for {teachers} teachers",
                where="--teacher-weight",
                hint="give one per --teacher, in order",
            )
        if not (
            self.contrastive_weight or any(self.teacher_weights) or (teachers and self.relational_weight)
        ):
            problems.add("nothing to learn: no contrastive term and no teacher", where="--contrastive-weight")
        if self.relational_weight and not teachers:
            problems.add(
                "likenesses are those that a teacher sees, and there is none",
                where="--relational-weight",
                hint="name a --teacher",
            )
        within_batch = self.contrastive == "infonce" and self.contrastive_weight > 0
        if self.micro_batch_size and (self.replays or within_batch or self.relational_weight):
            problems.add(
                "images are compared within a forward pass; it cannot be cut into micro-batches",
                where="--micro-batch-size",
                hint="leave it at 0; to save memory use --gradient-cache, which gives the whole batch's gradient",
            )
        if self.train_text and not (self.contrastive_weight or self.replays):
            problems.add(
                "the text tower has nothing to learn from: no contrastive term and no replay",
                where="--train-text",
            )
        self._check_trained(problems)
        self._check_trade_off(problems)
        return problems

    def _check_trained(self, problems: Problems) -> None:
        try:
            parts = self.trainable_parameters
        except ValueError as error:
            problems.add(str(error), where="--trainable")
            return
        if parts.lora_rank and self.train_text:
            problems.add("LoRA trains the image tower alone", where="--train-text")
        if self.lora_rank and not parts.lora_rank:
            problems.add(
                f"--trainable {self.trainable} leaves --lora-rank without effect", where="--lora-rank"
            )

    def _check_trade_off(self, problems: Problems) -> None:
        if not self.interpolate or not all(0 <= share <= 1 for share in self.interpolate):
            problems.add("shares of the tuned weights lie between 0 and 1", where="--interpolate")
        elif len(self.interpolate) > 1 and not self.measures:
            problems.add(
                "a trade-off is measured on images or pairs that were not trained on",
                where="--interpolate",
                hint="give --held-out, --held-out-share or --off-domain",
            )
        if self.held_out and self.held_out_share:
            problems.add(
                "held-out images are given, and a share is to be held out as well",
                where="--held-out-share",
                hint="use one of the two",
            )

    @property
    def trainable_parameters(self) -> TrainableParameters:
        """What of the encoder trains.

        Raises:
            ValueError: ``--trainable`` is none of its values.
        """
        wanted = self.trainable or ("lora" if self.lora_rank else "full")
        if wanted == "lora":
            return TrainableParameters(lora_rank=self.lora_rank or 16, text=self.train_text)
        match = re.fullmatch(r"full|last-([1-9][0-9]*)", wanted)
        if match is None:
            raise ValueError(f"expected full, lora or last-K such as last-4, got '{wanted}'")
        return TrainableParameters(last_blocks=int(match[1] or 0), text=self.train_text)

    def ineffective_options(self, layers: int) -> Iterator[str]:
        """What would be learnt or asked for without any use, in words.

        Args:
            layers: number of layers of the image tower.
        """
        read = self.feature_layer if self.feature_layer >= 0 else layers + 1 + self.feature_layer
        first = layers - self.trainable_parameters.last_blocks
        if self.trainable_parameters.last_blocks and first >= read:
            yield (
                f"the trained blocks ({first} and up) come after hidden state {read}, which the multimodal "
                "model reads: Rank_e will change, the multimodal model will not; train more blocks "
                f"(--trainable last-{layers - read + 1}), or set --feature-layer to the layer it reads"
            )
        if self.trainable_parameters.last_blocks > layers:
            yield f"--trainable {self.trainable}: the image tower has {layers} blocks; all of them train"
        if self.replay and not self.replay_weight:
            yield "--replay has no effect with --replay-weight 0"
        together = (self.micro_batch_size or self.batch_size) * (
            1 + (self.replay_per_image if self.replays else 0)
        )
        if self.gradient_cache >= together:
            yield (
                f"--gradient-cache {self.gradient_cache} has no effect: a forward pass has {together} images"
            )
        if not self.measures:
            yield (
                "nothing tells what is gained and what it costs; give --held-out or --held-out-share, and "
                "--off-domain"
            )
        if self.saved_share == 0:
            yield "the saved encoder is the original one: its share of the tuned weights is 0"
