"""Tune a multimodal model on instructions: projector, language model and encoder, fully or with LoRA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from priorkit.architectures.base import check_options
from priorkit.architectures.registry import ARCHITECTURES, architecture, option_groups, tune_options
from priorkit.core.options.settings import StepSettings, argument, option
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.engine.settings import check_sharding
from priorkit.training.finetuning.settings import (
    ExportEncoderSettings,
    FinetuningSettings,
    LoraSettings,
    Sources,
    TrainablePartsSettings,
)

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]


class TunedModelSettings(StepSettings):
    """What is tuned, on what, as which architecture."""

    mllm: str = argument("Multimodal model to tune.", accepts=("mllm", "adapter"), hub="model")
    instructions: Sources = argument(
        "Instructions in LLaVA's format, or rows with a question and its answer (JSON, JSON Lines, parquet, CSV), "
        "with or without images; several as NAME=PATH.",
        accepts=("world", "instructions"),
        metavar="INSTRUCTIONS",
        hub="dataset",
    )
    architecture: ArchitectureName = option(
        "llava",
        "How images enter the language model: "
        + "; ".join(f"{name}, {entry.summary}" for name, entry in ARCHITECTURES.items())
        + ".",
    )


class TuneSettings(
    ExportEncoderSettings,
    LoraSettings,
    TrainablePartsSettings,
    TunedModelSettings,
    *option_groups(),
    FinetuningSettings,
):
    """Options of ``priorkit tune``."""

    step: ClassVar[str] = "tune"
    kind: ClassVar[str] = "mllm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tune aligned world/instructions/train.parquet --epochs 3 --out tuned",
        "priorkit tune aligned llava=llava_v1_5_mix665k.json text=sharegpt.jsonl --weight llava=0.8,text=0.2 "
        "--train projector,llm,encoder --encoder-learning-rate 2e-6 --learning-rate 1e-5 --out tuned",
    )


def plan(settings: TuneSettings, inputs: Inputs) -> Plan[Any]:
    """Let the architecture check model, instructions and options from headers."""
    check_sharding(settings)
    check_options(settings, settings.architecture, tune_options())
    return architecture(settings.architecture).plan(settings, inputs)


def execute(settings: TuneSettings, work: Work[Any]) -> None:
    """Let the architecture load the model and set its trainable parameters; train on the supervised tokens; save."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.finetuning.finetune import train_and_save

    run = architecture(settings.architecture).prepare(settings, work, started)
    train_and_save(run, settings, started, work, settings.step)


STEP = Step(TuneSettings, plan, execute)
run = STEP.run
