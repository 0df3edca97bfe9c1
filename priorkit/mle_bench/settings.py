"""Settings of ``priorkit mle-bench``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar, Literal

from priorkit.core.input_files import list_files
from priorkit.core.inputs import Input
from priorkit.core.options.settings import (
    RuntimeSettings,
    StepSettings,
    argument,
    option,
    redefault,
    reject_limit_option,
)
from priorkit.core.options.values import Count
from priorkit.mle_bench.annotations import masks_beside


class MleBenchSettings(StepSettings):
    """Options of ``priorkit mle-bench``."""

    step: ClassVar[str] = "mle-bench"
    kind: ClassVar[str] = "benchmark"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit mle-bench world/annotated --out existence",
        "priorkit mle-bench coco/val2017 --annotations coco/annotations/instances_val2017.json "
        "--synonyms synonyms.txt --per-bin 600 --out coco-existence",
    )

    images: str = argument(
        "Folder of annotated images: COCO instances or panoptic, or ADE20K.",
        accepts=("world",),
        metavar="IMAGES",
    )
    annotations: str | None = option(
        None,
        "COCO's JSON file, where it is not instances.json or panoptic.json in the folder.",
        accepts=("world",),
        metavar="FILE",
    )
    masks: str | None = option(
        None, "Folder of the PNG masks of COCO panoptic or ADE20K.", accepts=("world",), metavar="DIR"
    )
    names: str | None = option(
        None,
        "Names of ADE20K's classes: lines, a table with a column 'name', or JSON such as id2label.",
        accepts=("world",),
        metavar="FILE",
    )
    synonyms: str | None = option(
        None,
        "Synonyms: one group per line, separated by tabs or commas, or a JSON list of lists.",
        accepts=("world",),
        metavar="FILE",
    )
    synonym_model: str | None = option(
        None,
        "Language model that judges whether two names mean the same, where the file does not say so.",
        accepts=("llm", "adapter"),
        hub="model",
        metavar="MODEL",
    )
    synonym_threshold: float = option(
        0.5,
        "Probability of yes against no from which on the model's verdict is synonyms.",
        ge=0,
        le=1,
        advanced=True,
    )
    templates: str | None = option(
        None,
        "Wordings of the question, one per line, used equally often; {options} is replaced by the four options "
        "(default: three wordings of the paper).",
        accepts=("text",),
        metavar="FILE",
        advanced=True,
    )
    per_bin: Count = option(0, "Maximum number of questions per size bin, 0 for all.", metavar="N")
    seed: int = option(42, "Seed of targets, options and their order.", ge=0)
    batch_size: int = option(32, "Questions per forward pass of the model.", ge=1, metavar="N")
    device: Literal["auto", "cpu", "cuda"] = redefault(RuntimeSettings, "device", "auto")
    precision: Literal["auto", "fp32", "bf16"] = redefault(RuntimeSettings, "precision", "auto")
    reject_limit: float = reject_limit_option("images")

    def named_files(self, inputs: Mapping[str, Input]) -> Mapping[str, tuple[Path, Collection[str]]]:
        """The masks next to a file of annotations, where they are not given."""
        file = inputs.get("annotations")
        folder = masks_beside(file.path) if file and file.path.is_file() and "masks" not in inputs else None
        names = list_files(folder).names if folder else ()
        return {"masks": (folder, names)} if folder and names else {}
