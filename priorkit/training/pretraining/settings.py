"""Options of pretraining a language model and of pretraining an encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    Settings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.options.values import Count, Counts, Named, Numbers, Words
from priorkit.data.columns import (
    CAPTIONS,
    ImageColumnSettings,
    ImageFolderSettings,
    RowLayout,
    TextColumnSettings,
    layout_of,
)
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.named_images import images_of_pairs, named_images
from priorkit.models.language import causal_lm
from priorkit.models.vision.patch_settings import PatchSettings
from priorkit.training.engine.settings import CompileSettings, MemorySettings, TrainingSettings
from priorkit.training.objectives.settings import GradientCacheSettings


class ScaleSettings(Settings):
    """How attention is computed."""

    group: ClassVar[str] = "model"

    document_mask: bool = option(
        False,
        "Mask attention and reset positions across documents; default attention over the full row.",
        advanced=True,
    )


class ProgressSettings(Settings):
    """What to export and measure during training."""

    group: ClassVar[str] = "along the way"

    export_at: Counts = option(
        (), "Token counts at which to export the model as a separate artifact, OUT-at-N.", metavar="N"
    )
    export_decay: Numbers = option(
        (),
        "Share of an export's steps over which its learning rate decays to the final one, on a branch that the run "
        "does not follow: one for all exports or one each, 0 for none; by default none is annealed.",
        advanced=True,
    )
    eval_sources: Named = option(
        {},
        "Held-out text; its validation loss and bits per byte are logged.",
        accepts=("text", "corpus", "world"),
        metavar="NAME=SOURCE",
        flag="--eval",
    )
    eval_every: int = option(
        250, "Steps between two measurements of the validation loss.", ge=1, advanced=True
    )


class PretrainSettings(
    ScaleSettings, CompileSettings, MemorySettings, ProgressSettings, TrainingSettings, StepSettings
):
    """Options of ``priorkit pretrain``."""

    step: ClassVar[str] = "pretrain"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit pretrain corpus --preset pocket --epochs 2 --learning-rate 3e-3 --out llm",
        "torchrun --nproc-per-node 2 -m priorkit pretrain corpus --from llm --tokens 1M --out llm-2",
    )

    corpus: str = argument("Corpus made by mix.", accepts=("corpus",))
    preset: str | None = option(
        None, f"Preset of a new model: {', '.join(causal_lm.presets())}.", metavar="NAME"
    )
    config: str | None = option(
        None, "Architecture of a new model: a config.json of transformers.", accepts=("llm",), metavar="FILE"
    )
    from_llm: str | None = option(
        None,
        "Model to continue training, instead of a new one.",
        accepts=("llm",),
        hub="model",
        flag="--from",
    )
    random_init: bool = option(
        False,
        "Write the new model with random weights, without training: zero tokens; the corpus gives the tokenizer.",
        advanced=True,
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    compile: bool = redefault(CompileSettings, "compile", False, advanced=False)
    fp8: bool = option(
        False,
        "Multiply the layers' matrices in fp8 (torchao; Ada and Hopper GPUs, with --compile); slower below about a "
        "billion parameters.",
        advanced=True,
    )
    spike_limit: float = redefault(TrainingSettings, "spike_limit", 3.0)


class RegionSettings(PatchSettings):
    """What is trained on the images' regions."""

    region_weight: float = option(
        0.0,
        "Weight of matching patches with the texts of the regions they show, for pairs with boxes or masks; 0 "
        "for none.",
        ge=0,
        advanced=True,
    )
    region_box_weight: float = option(
        0.0,
        "Weight of predicting a region's box from each patch that shows it (DETR's L1 and GIoU); 0 for none.",
        ge=0,
        advanced=True,
    )

    @property
    def trains_regions(self) -> bool:
        """Whether there is a region term."""
        return bool(self.region_weight or self.region_box_weight)


class PretrainEncoderSettings(
    ImageFolderSettings,
    TextColumnSettings,
    ImageColumnSettings,
    CompileSettings,
    RegionSettings,
    GradientCacheSettings,
    AugmentationSettings,
    TrainingSettings,
    StepSettings,
):
    """Options of ``priorkit pretrain-encoder``."""

    step: ClassVar[str] = "pretrain-encoder"
    kind: ClassVar[str] = "encoder"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit pretrain-encoder world/pairs/train.parquet --preset pocket --steps 1200 --out encoder",
        "priorkit pretrain-encoder shards/ --preset siglip-b-16 --loss siglip --batch-size 4096 "
        "--gradient-cache 256 --augment-crop 0.9 --epochs 10 --out encoder",
    )

    pairs: str = argument(
        "Image-text pairs, with regions or without: parquet, Arrow, JSON Lines, CSV or TSV with image and text, "
        "captions in LLaVA's format, or WebDataset tar shards.",
        accepts=("world",),
        hub="dataset",
    )
    preset: str = option("pocket", "Preset of the encoder.", metavar="NAME")
    config: str | None = option(
        None,
        "Architecture of the encoder: a config.json of CLIP or SigLIP, instead of --preset.",
        accepts=("encoder",),
        metavar="FILE",
    )
    loss: Literal["clip", "siglip"] = option(
        "clip", "Contrastive loss: softmax over the batch (CLIP), or a sigmoid per pair (SigLIP)."
    )
    text_column: Words = redefault(TextColumnSettings, "text_column", CAPTIONS)
    vocab_size: Count = option(
        2048, "Vocabulary size of the text tower's tokenizer, trained on the texts.", ge=300
    )
    reject_limit: float = reject_limit_option("rows")
    batch_size: int = redefault(TrainingSettings, "batch_size", 128)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 100)
    adam_beta2: float = redefault(TrainingSettings, "adam_beta2", 0.98)

    @property
    def layout(self) -> RowLayout:
        """How the pairs are read.

        Raises:
            InputError: the folder of images is missing.
        """
        return layout_of(self)

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The images that rows name."""
        return named_images(inputs, ("pairs",), images_of_pairs, lambda _: self.layout)
