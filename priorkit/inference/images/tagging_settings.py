"""Options of ``tag-images``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from priorkit.core.errors import InputError
from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    reject_limit_option,
)
from priorkit.core.options.values import Count
from priorkit.data.columns import IMAGE_FOLDER_HELP, ImageColumnSettings, RowLayout, layout_of
from priorkit.data.images.named_images import images_of_tables, named_images
from priorkit.inference.images.tag_thresholds import read_thresholds


class TagImagesSettings(ImageColumnSettings, RuntimeSettings, StepSettings):
    """Options of ``priorkit tag-images``."""

    step: ClassVar[str] = "tag-images"
    kind: ClassVar[str] = "instructions"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tag-images world/instructions/train.parquet encoder --vocabulary world/names.txt "
        "--labelled world/captions/train.parquet --out tagged",
        "priorkit tag-images tagged/train.parquet --drop 0.3 --corrupt 0.2 --out noisy",
    )

    images: str = argument(
        "Table with images (parquet, Arrow, JSON, JSON Lines, CSV, TSV), folder of tables, or folder of images.",
        accepts=("world", "benchmark", "instructions"),
        metavar="IMAGES",
        hub="dataset",
    )
    tagger: str | None = argument(
        "Encoder with a text tower, or image-classification model; without one, existing tags are kept.",
        accepts=("encoder",),
        default=None,
        metavar="TAGGER",
        hub="model",
    )
    vocabulary: str | None = option(
        None,
        "File with a tag per line; for a classifier, a subset of its labels.",
        accepts=("world",),
        metavar="FILE",
    )
    labelled: str | None = option(
        None,
        "Table with images and true tags in --tags-column: odd rows calibrate a decision threshold per tag, "
        "even rows measure it.",
        accepts=("world", "instructions", "benchmark"),
        metavar="TABLE",
    )
    threshold: float | None = option(
        None, "One decision threshold for all tags: cosine of an encoder, probability of a classifier (0.5)."
    )
    thresholds: str | None = option(
        None,
        "File with a threshold per tag, a number per line in the order of the vocabulary, as RAM comes with one; or "
        "a table with the columns tag and threshold.",
        accepts=("thresholds",),
        metavar="FILE",
        advanced=True,
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",), "An encoder's prompt template; {} is the tag; repeat to ensemble."
    )
    most: Count = option(
        0, "Largest number of tags of an image, highest scores first; 0 for all.", metavar="N"
    )
    image_folder: str | None = option(None, IMAGE_FOLDER_HELP + ".", metavar="DIR")
    tags_column: str = option("tags", "Column of the tags, written or read.", metavar="COLUMN")
    drop: float = option(0.0, "Probability that a tag is dropped, 0 to 1.", ge=0, le=1, advanced=True)
    corrupt: float = option(
        0.0,
        "Probability that a tag is replaced by a wrong one from the vocabulary, 0 to 1.",
        ge=0,
        le=1,
        advanced=True,
    )
    batch_size: int = option(64, "Images per forward pass.", ge=1)
    reject_limit: float = reject_limit_option("images")

    @property
    def layout(self) -> RowLayout:
        """How tables are read.

        Raises:
            InputError: the folder of images is missing.
        """
        folder = None if self.image_folder is None else Path(self.image_folder).expanduser()
        if folder is not None and not folder.is_dir():
            raise InputError("no such folder", where=f"--image-folder {self.image_folder}")
        return replace(layout_of(self), image_folder=folder)

    def tag_thresholds(self, inputs: Mapping[str, Input], tags: Sequence[str]) -> list[float] | None:
        """The thresholds of ``--thresholds`` in the tags' order; None without.

        Raises:
            InputError: as :func:`priorkit.inference.images.tag_thresholds.read_thresholds`.
        """
        file = inputs.get("thresholds")
        return None if file is None else read_thresholds(file.path, tags)

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        return named_images(inputs, ("images", "labelled"), images_of_tables, lambda _: self.layout)
