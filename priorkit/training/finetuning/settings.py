"""Options that align, tune and blind-tune share: what they read, how it is mixed and batched, which parts are trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator

from priorkit.core.inputs import Input
from priorkit.core.options.box_text import BoxTextSettings
from priorkit.core.options.settings import Settings, StepSettings, option, redefault, reject_limit_option
from priorkit.core.options.values import Count, Named, NamedNumbers, Words
from priorkit.data.columns import (
    ImageColumnSettings,
    ImageFolderSettings,
    QuestionColumnSettings,
    RowLayout,
    TextColumnSettings,
    layout_of,
)
from priorkit.data.conversations.conversation import IMAGE_KEYS
from priorkit.data.conversations.sample_packing import COARSE, FINE
from priorkit.data.images.named_images import images_of_conversations, named_images
from priorkit.models.language.conversation_formats import ChatTemplateSettings
from priorkit.training.engine.settings import MemorySettings, TrainingSettings

UNNAMED = "all"
"""The name of a single source given as a path without a name."""


def _sources(items: Any) -> Any:
    """Accept a path without a name where there is one source."""
    if isinstance(items, list | tuple) and len(items) == 1:
        (item,) = items
        if isinstance(item, str) and ("=" not in item or Path(item).expanduser().exists()):
            return {UNNAMED: item}
    return items


Sources = Annotated[Named, BeforeValidator(_sources)]
"""One path, or several ``NAME=PATH``."""


class InstructionSettings(
    ChatTemplateSettings, ImageFolderSettings, QuestionColumnSettings, ImageColumnSettings
):
    """Which conversations are read, and how they are batched."""

    group: ClassVar[str] = "conversations"

    weight: NamedNumbers = option(
        {},
        "A source's share of the mixture, on any scale; default: by size.",
        metavar="NAME=W",
        advanced=True,
    )
    unit: Literal["samples", "tokens"] = option(
        "samples",
        "What weights and --subset count: samples, or supervised tokens, which the loss is computed on.",
        advanced=True,
    )
    subset: Count | None = option(
        None,
        "Size of the mixture, such as 1M; default: as many as use no sample twice.",
        metavar="N",
        ge=1,
        advanced=True,
    )
    max_epochs: float = option(
        4.0, "Maximum number of times that a source's samples occur in the mixture.", gt=0, advanced=True
    )
    ability: Words = option(
        (),
        "Keep only samples of these ability groups (their key 'ability').",
        metavar="GROUP",
        advanced=True,
    )
    max_length: Count = option(
        0, "Maximum length of a conversation in tokens, images included; 0 for the model's.", metavar="N"
    )
    reject_limit: float = reject_limit_option("samples")
    packing: bool = option(
        True,
        "Pack conversations into rows with block-diagonal attention; otherwise one per row, padded.",
        advanced=True,
    )
    compile: bool = option(
        False,
        "Compile the language model with torch.compile (needs a C++ compiler on CPUs).",
        advanced=True,
    )

    image_column: Words = redefault(ImageColumnSettings, "image_column", IMAGE_KEYS)

    def layout(self, source: str) -> RowLayout:
        """How a source is read; rows with a text instead of an answer only where there is a column for it.

        Raises:
            InputError: a folder of images is missing.
        """
        found = layout_of(self, source)
        return found if isinstance(self, TextColumnSettings) else replace(found, text=())

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name, and the file of a chat template."""
        named = named_images(inputs, ("captions", "instructions"), images_of_conversations, self.layout)
        return {**named, **self.template_files()}


class FinetuningSettings(
    MemorySettings, TrainingSettings, BoxTextSettings, InstructionSettings, StepSettings
):
    """Base of the settings of align, tune and blind-tune."""

    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)

    @property
    def lengths_per_octave(self) -> int:
        """Number of row lengths per doubling: few where each is compiled."""
        return COARSE if self.compile else FINE

    def total_epochs(self, samples: int, tokens_per_sample: float) -> float:
        """How often a run uses each of its samples.

        Args:
            samples: samples in the data.
            tokens_per_sample: mean number of tokens in one, for a length given in tokens.
        """
        return self.total_steps(samples, tokens_per_sample) * self.batch_size / samples


class TrainablePartsSettings(Settings):
    """Which parts of a multimodal model are trained, and how fast."""

    train: Words = option(
        ("projector", "llm"), "Parts to train: any of projector, llm and encoder.", metavar="PART"
    )
    projector_learning_rate: float | None = option(
        None,
        "Peak learning rate of the projector where it differs.",
        gt=0,
        advanced=True,
    )
    llm_learning_rate: float | None = option(
        None,
        "Peak learning rate of the language model where it differs.",
        gt=0,
        advanced=True,
    )
    encoder_learning_rate: float | None = option(
        None,
        "Peak learning rate of the encoder where it differs.",
        gt=0,
        advanced=True,
    )


class LoraSettings(Settings):
    """LoRA on the language model."""

    lora_rank: int = option(
        0, "Rank of LoRA on the language model's matrices; makes an adapter. 0 for full fine-tuning.", ge=0
    )
    lora_alpha: int = option(0, "LoRA's alpha; 0 for twice the rank.", ge=0, advanced=True)
    lora_dropout: float = option(0.0, "Dropout before LoRA's matrices, 0 to 1.", ge=0, lt=1, advanced=True)
    dora: bool = option(
        False, "Train the matrices' magnitudes separately from their directions (DoRA).", advanced=True
    )


class ExportEncoderSettings(Settings):
    """Whether the tuned encoder is written too."""

    export_encoder: str | None = option(
        None,
        "Also write the tuned encoder to OUT/encoder; give the encoder that the model was aligned with, whose "
        "text tower is copied.",
        accepts=("encoder",),
        hub="model",
        advanced=True,
    )
