"""Settings of ``priorkit label-corpus``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
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
)
from priorkit.core.options.values import Count, Named, NamedNumbers, Words
from priorkit.data.columns import (
    ImageColumnSettings,
    ImageFolderSettings,
    RowLayout,
    TextColumnSettings,
    layout_of,
)
from priorkit.data.conversations.conversation import IMAGE_KEYS
from priorkit.data.images.named_images import images_of_conversations, named_images
from priorkit.data.text.concepts import ABILITY_LABELS, CONCEPT_LABELS, LabelSet
from priorkit.data.text.documents import TEXT_FILES

ALL_LABELS = "all"
"""Sets the threshold of every label in ``--threshold``."""


class LabelCorpusSettings(
    ImageFolderSettings, ImageColumnSettings, TextColumnSettings, RuntimeSettings, StepSettings
):
    """Options of ``priorkit label-corpus``."""

    step: ClassVar[str] = "label-corpus"
    kind: ClassVar[str] = "text"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit label-corpus facts=world/text/facts.jsonl code=world/text/code.jsonl --labeller llm "
        "--segment-tokens 128 --out labelled",
        "priorkit label-corpus facts=world/text/facts.jsonl code=world/text/code.jsonl --labeller llm "
        "--segment-tokens 128 --distil-labeller --sample 200 --out labelled-fast",
    )

    sources: Named = argument(
        f"Text sources: {TEXT_FILES}, a folder of them, or a hub dataset id; with --labels abilities "
        "conversations in LLaVA's format.",
        accepts=("world", "text"),
        metavar="NAME=SOURCE",
        hub="dataset",
    )
    labels: Literal["concepts", "abilities"] = option(
        "concepts",
        "Label set: six concepts for each segment of text; or for each conversation whether it trains "
        "perception, reasoning or neither, written back with the key 'ability', one folder per label.",
    )
    labeller: str = option(
        ...,
        "Language model; for abilities by generation also a multimodal model, which sees the images; or the linear "
        "labeller of an earlier --distil-labeller (its folder or artifact).",
        accepts=("llm", "mllm", "adapter", "text", "instructions"),
        hub="model",
        metavar="MODEL",
    )
    by: Literal["likelihood", "generation"] = option(
        "likelihood",
        "How the model labels: the likelihood of yes for each label, or one question for all labels whose written "
        "answer is parsed, as in the paper.",
    )
    compare: Count = option(
        0,
        "Segments of those the model labels (held-out ones with --distil-labeller) that it also labels the other "
        "way of --by, to report how far the two agree.",
        metavar="N",
        advanced=True,
    )
    distil_labeller: bool = option(
        False,
        "Label only a sample with the model, train a linear labeller on it and label the rest with that.",
    )
    sample: Count = option(
        2000, "Segments that the model labels for --distil-labeller.", metavar="N", ge=20, advanced=True
    )
    held_out: float = option(
        0.2, "Share of the sample held out to compare the linear labeller with the model.", gt=0, lt=1
    )
    segment_tokens: Count = option(1024, "Length of a segment in tokens.", metavar="N", ge=1)
    tokenizer: str | None = option(
        None,
        "Tokenizer that counts the tokens of a segment (default: the labeller's).",
        accepts=("tokenizer", "llm", "corpus", "mllm"),
        hub="model",
    )
    threshold: NamedNumbers = option(
        {},
        "Decision threshold per label; all=X sets every label. Default: 0.5 with a language model, fitted to "
        "the sample's label frequencies with a linear labeller.",
        metavar="LABEL=X",
    )
    prompt: str | None = option(
        None,
        "Prompt of the model: a TOML file like the shipped labelling/language_models/concepts-generation.toml "
        "(or abilities-, -likelihood.toml).",
        accepts=("text",),
        metavar="FILE",
    )
    form: Literal["auto", "chat", "plain"] = option(
        "auto",
        "Chat template or plain text; auto: chat where the model's tokenizer has a template.",
        advanced=True,
    )
    calibrate: bool = option(False, "Contextual calibration on content-free inputs.", advanced=True)
    max_new_tokens: int = option(
        64, "Longest answer in tokens with --by generation.", metavar="N", ge=1, advanced=True
    )
    max_documents: Count = option(0, "Documents read of each source, 0 for all.", metavar="N", advanced=True)
    batch_size: int = option(8, "Segments per forward pass of a model.", ge=1)
    images: tuple[str, ...] = redefault(ImageFolderSettings, "images", (), advanced=True)
    image_column: Words = redefault(ImageColumnSettings, "image_column", IMAGE_KEYS)
    reject_limit: float = reject_limit_option("rows")

    @property
    def other_way(self) -> LabelCorpusSettings:
        """The same with the other way of labelling, its prompt the shipped one."""
        by = "generation" if self.by == "likelihood" else "likelihood"
        return self.model_copy(update={"by": by, "prompt": None, "calibrate": False})

    @property
    def label_set(self) -> LabelSet:
        """The labels to give."""
        return CONCEPT_LABELS if self.labels == "concepts" else ABILITY_LABELS

    def layout(self, source: str) -> RowLayout:
        """How a source of conversations is read.

        Raises:
            InputError: a folder of images is missing.
        """
        return replace(layout_of(self, source), text=())

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images of conversations, which are written with them."""
        if self.labels != "abilities":
            return {}
        return named_images(inputs, ("sources",), images_of_conversations, self.layout)
