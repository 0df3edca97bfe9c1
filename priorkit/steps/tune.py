"""Tune a multimodal model on instructions: projector, language model and encoder, whole or by LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from priorkit.architectures.base import check_options
from priorkit.architectures.registry import ARCHITECTURES, architecture, option_groups, tune_options
from priorkit.core import runtime
from priorkit.core.inputs import Input
from priorkit.core.settings import StepSettings, argument, option, redefault
from priorkit.core.step import Step
from priorkit.core.values import Words
from priorkit.core.work import Plan, Work
from priorkit.training.engine.settings import MemorySettings, TrainingSettings, check_sharding
from priorkit.training.finetuning.settings import InstructionSettings, Sources

if TYPE_CHECKING:
    ArchitectureName = str
else:
    ArchitectureName = Literal[tuple(ARCHITECTURES)]


class TuneSettings(*option_groups(), MemorySettings, TrainingSettings, InstructionSettings, StepSettings):
    """Options of ``priorkit tune``."""

    step: ClassVar[str] = "tune"
    kind: ClassVar[str] = "mllm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit tune aligned world/instructions/train.parquet --epochs 3 --out tuned",
        "priorkit tune aligned llava=llava_v1_5_mix665k.json text=sharegpt.jsonl --weight llava=0.8,text=0.2 "
        "--train projector,llm,encoder --encoder-learning-rate 2e-6 --learning-rate 1e-5 --out tuned",
    )

    mllm: str = argument("Multimodal model to tune.", accepts=("mllm", "adapter"), hub="model")
    instructions: Sources = argument(
        "Instructions in LLaVA's format (JSON, JSON Lines, parquet), with or without images; several as NAME=PATH.",
        accepts=("world",),
        metavar="INSTRUCTIONS",
        hub="dataset",
    )
    architecture: ArchitectureName = option(
        "llava",
        "How images enter the language model: "
        + "; ".join(f"{name}, {entry.summary}" for name, entry in ARCHITECTURES.items())
        + ".",
    )
    train: Words = option(
        ("projector", "llm"), "Parts to train, of projector, llm and encoder.", metavar="PART"
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
    lora_rank: int = option(
        0, "Rank of LoRA on the language model's matrices; 0 trains them whole. Makes an adapter.", ge=0
    )
    lora_alpha: int = option(0, "LoRA's alpha; twice the rank where 0.", ge=0, advanced=True)
    lora_dropout: float = option(0.0, "Dropout before LoRA's matrices, 0 to 1.", ge=0, lt=1, advanced=True)
    dora: bool = option(
        False, "Train magnitudes apart from directions (DoRA) beside LoRA's matrices.", advanced=True
    )
    export_encoder: str | None = option(
        None,
        "Also write the tuned encoder, as OUT/encoder; names the encoder that the model was aligned with, "
        "whose text tower goes along.",
        accepts=("encoder",),
        hub="model",
        advanced=True,
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


def plan(settings: TuneSettings, inputs: Mapping[str, Input]) -> Plan:
    """Let the architecture check model, instructions and options from headers."""
    check_sharding(settings)
    check_options(settings, settings.architecture, tune_options())
    return architecture(settings.architecture).plan(settings, inputs)


def execute(settings: TuneSettings, work: Work) -> None:
    """Let the architecture load the model and choose what trains; train on the supervised tokens; save."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.finetuning.finetune import learn

    prepared = architecture(settings.architecture).prepare(settings, work, started)
    learn(prepared, settings, started, work, settings.step)


STEP = Step(TuneSettings, plan, execute)
run = STEP.run
