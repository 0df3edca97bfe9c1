"""Options of ``align``: what is joined, and how the projector reads the encoder."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from priorkit.core.options.settings import argument, option, redefault
from priorkit.core.options.values import Words, split_commas
from priorkit.data.columns import CAPTIONS, ImageColumnSettings, TextColumnSettings
from priorkit.data.conversations.conversation import CAPTION_IMAGES
from priorkit.training.engine.settings import TrainingSettings
from priorkit.training.finetuning.settings import FinetuningSettings, Sources

Layers = Annotated[tuple[int, ...], BeforeValidator(split_commas), Field(min_length=1)]


class AlignSettings(TextColumnSettings, FinetuningSettings):
    """Options of ``priorkit align``."""

    step: ClassVar[str] = "align"
    kind: ClassVar[str] = "mllm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit align llm encoder world/captions/train.parquet --epochs 2 --out aligned",
        "priorkit align meta-llama/Llama-3.2-1B openai/clip-vit-large-patch14-336 blip_558k.json "
        "--batch-size 256 --image-tokens 576 --warmup-steps 130 --out aligned",
    )

    llm: str = argument("Language model.", accepts=("llm",), hub="model")
    encoder: str = argument("Encoder whose image tower is used.", accepts=("encoder",), hub="model")
    captions: Sources = argument(
        "Image captions: conversations in LLaVA's format, or rows with image and text (JSON, JSON Lines, parquet, "
        "CSV, TSV); several as NAME=PATH.",
        accepts=("world", "instructions"),
        metavar="CAPTIONS",
        hub="dataset",
    )
    also_encoder: tuple[str, ...] = option(
        (),
        "Further encoder whose patch features are concatenated to the first one's; repeatable. The model then "
        "loads only where priorkit is installed.",
        accepts=("encoder",),
        hub="model",
        metavar="ENCODER",
        advanced=True,
    )
    feature_layer: Layers = option(
        (-2,),
        "Hidden state of the encoder that the projector reads; several are concatenated.",
        metavar="N",
    )
    class_token: bool = option(
        False,
        "Give the projector the encoder's class token in addition to the patches; LLaVA drops it.",
        advanced=True,
    )
    projector: Literal["mlp", "linear"] = option(
        "mlp", "Two layers with GELU (LLaVA 1.5), or one linear layer."
    )
    image_tokens: int | None = option(
        None,
        "Features of an image, a square number such as 576; see --resample. Default: the encoder's patches.",
        metavar="N",
        ge=1,
    )
    resample: Literal["positions", "features"] = option(
        "positions",
        "What is interpolated for --image-tokens: position embeddings, with the encoder at another resolution; or the "
        "features of its own resolution, as in the paper (the model then loads only where priorkit is installed).",
        advanced=True,
    )
    resize: Literal["crop", "squash", "pad"] | None = option(
        None,
        "How images become square: center crop, both sides scaled (normalized boxes stay valid), or padding with "
        "the mean color as in LLaVA 1.5. Default: as the encoder was trained.",
        advanced=True,
    )
    image_column: Words = redefault(ImageColumnSettings, "image_column", CAPTION_IMAGES)
    text_column: Words = redefault(TextColumnSettings, "text_column", CAPTIONS, advanced=True)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
