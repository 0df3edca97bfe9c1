"""Options of ``representation-alignment``."""

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
from priorkit.core.options.values import Count, Words
from priorkit.data.columns import (
    CAPTIONS,
    ImageColumnSettings,
    ImageFolderSettings,
    TextColumnSettings,
    layout_of,
)
from priorkit.data.images.named_images import images_of_pairs, named_images


class AlignmentSettings(
    ImageFolderSettings, TextColumnSettings, ImageColumnSettings, RuntimeSettings, StepSettings
):
    """Options of ``priorkit representation-alignment``."""

    step: ClassVar[str] = "representation-alignment"
    kind: ClassVar[str] = "scores"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit representation-alignment llm world/pairs/test.parquet encoder --out alignment",
        "priorkit representation-alignment meta-llama/Llama-3.2-1B wit_1024.parquet facebook/dinov2-giant "
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K google/vit-large-patch16-224-in21k --out alignment",
    )

    llm: str = argument("Language model that reads the texts.", accepts=("llm",), hub="model")
    pairs: str = argument(
        "Image-text pairs (parquet, Arrow, JSON Lines, CSV, TSV), 1024 or more; the texts should differ.",
        accepts=("world",),
        metavar="PAIRS",
        hub="dataset",
    )
    encoder: tuple[str, ...] = argument(
        "Image encoders, with or without a text tower; the score is the mean over them.",
        accepts=("encoder",),
        hub="model",
    )
    neighbours: int = option(20, "k of mutual k-nearest neighbours; 20 in LSBS, 10 in platonic-rep.", ge=1)
    llm_pooling: Literal["mean", "last"] = option(
        "mean", "How a text's tokens become one vector: their mean, or the last token."
    )
    encoder_pooling: Literal["auto", "class", "mean", "pooled"] = option(
        "auto",
        "How an image's tokens become one vector: class token, mean of the patches, the first of them that "
        "exists (auto), or the encoder's pooled feature, which has no layers.",
    )
    llm_layers: Words = option(
        (), "Hidden states of the language model, 0 for the embeddings; default: all.", metavar="N"
    )
    encoder_layers: Words = option(
        (), "Hidden states of the encoders, 0 for the embeddings; default: all.", metavar="N"
    )
    clamp: float = option(
        0.95, "Quantile of absolute values that features are clamped to, as in platonic-rep; 1 for no clamp.",
        gt=0, le=1, advanced=True,
    )  # fmt: skip
    cka: bool = option(
        True, "Also compute linear CKA, plain and unbiased, of the best-aligned pair of layers."
    )
    limit: Count = option(0, "Use the first N pairs; 0 uses all.")
    max_length: int = option(512, "Longest text in tokens; longer ones are truncated.", ge=1, advanced=True)
    batch_size: int = option(16, "Images or texts per forward pass.", ge=1)
    resamples: int = resamples_option("pairs")
    permutations: int = option(
        200, "Random matchings of texts and images that give the null distribution.", ge=20, advanced=True
    )
    reject_limit: float = reject_limit_option("pairs")
    text_column: Words = redefault(TextColumnSettings, "text_column", CAPTIONS)
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "fp32")

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        return named_images(inputs, ("pairs",), images_of_pairs, lambda _: layout_of(self))
