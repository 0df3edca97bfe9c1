"""Blind instruction tuning: a language model learns the instructions with the images withheld (LSBS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import StepSettings, argument, option, redefault
from priorkit.core.step import Step
from priorkit.core.work import Plan, Work
from priorkit.training.engine.settings import MemorySettings, TrainingSettings, check_sharding
from priorkit.training.finetuning.settings import InstructionSettings, Sources


class BlindTuneSettings(MemorySettings, TrainingSettings, InstructionSettings, StepSettings):
    """Options of ``priorkit blind-tune``."""

    step: ClassVar[str] = "blind-tune"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit blind-tune llm world/instructions/train.parquet --epochs 1 --out blind-llm",
        "priorkit blind-tune aligned llava_v1_5_mix665k.json --abstain --answerable-gain 0.1 "
        "--learning-rate 2e-5 --out abstaining",
    )

    llm: str = argument(
        "Language model to tune, or a multimodal model whose language side is tuned.",
        accepts=("llm", "mllm"),
        hub="model",
    )
    instructions: Sources = argument(
        "Instructions in LLaVA's format (JSON, JSON Lines, parquet); their images are not read. Several as NAME=PATH.",
        accepts=("world",),
        metavar="INSTRUCTIONS",
        hub="dataset",
    )
    placeholder: Literal["drop", "keep", "learned"] = option(
        "drop",
        "What becomes of the image's place: dropped as in the paper, kept as one token, or filled by learnt embeddings.",
    )
    placeholder_tokens: int = option(
        0,
        "Positions of the learnt embeddings; 0 for as many as an image takes (1 in a language model).",
        ge=0,
        advanced=True,
    )
    control: Literal["none", "text", "sighted"] = option(
        "none",
        "Train a compute-matched control instead: on the samples without images alone, or with the images shown.",
    )
    shuffle_answers: bool = option(False, "Give every conversation the answers of another.")
    answerable_only: bool = option(
        False,
        "Leave out questions about images that language alone does not help to answer.",
        advanced=True,
    )
    abstain: bool = option(
        False,
        "Let questions about images that language alone does not help to answer be answered by a refusal.",
        advanced=True,
    )
    answerable_gain: float = option(
        0.0,
        "What helps: the question must raise the blind log-likelihood of its answer by more than this, in nats per token.",
        advanced=True,
    )
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


def plan(settings: BlindTuneSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check model, instructions and arm from headers."""
    from priorkit.models.folder import read_config, tensor_files
    from priorkit.models.language.causal_lm import check_llm
    from priorkit.models.language.chat_template import check_chat_template
    from priorkit.models.language.tokenizer import load_tokenizer
    from priorkit.models.multimodal.llava import check_llava, check_llava_chat_template
    from priorkit.training.engine.resource_estimates import footprint
    from priorkit.training.finetuning.blind_arms import arm_of
    from priorkit.training.finetuning.conversation_source import check_sources

    check_sharding(settings)
    folder = inputs["llm"].path
    multimodal = "vision_config" in read_config(folder)
    config = check_llava(folder) if multimodal else check_llm(folder)
    _check_arm(settings, multimodal)
    if multimodal:
        check_llava_chat_template(folder, config)
    else:
        check_chat_template(load_tokenizer(folder), folder)
    size = footprint(tensor_files(folder), ("llm",))
    facts = check_sources(inputs, "instructions")
    return Plan(
        [
            ("model", str(config["model_type"]) + ", its language side" * multimodal),
            *facts,
            ("arm", arm_of(settings)),
        ],
        disk_bytes=size.disk_bytes,
        memory_bytes=size.memory_bytes if settings.device != "cuda" else 0,
        kind="mllm" if multimodal else "llm",
    )


def _check_arm(settings: BlindTuneSettings, multimodal: bool) -> None:
    problems = Problems(UsageError)
    if settings.control == "sighted" and not multimodal:
        problems.add(
            "a language model sees no images", where="--control sighted", hint="give a multimodal model"
        )
    if settings.control != "none":
        for name in ("placeholder", "shuffle_answers", "answerable_only", "abstain"):
            if getattr(settings, name) != BlindTuneSettings.model_fields[name].default:
                problems.add(
                    "a control is an arm of its own", where=f"--{name.replace('_', '-')}", hint="leave it out"
                )
    if settings.answerable_only and settings.abstain:
        problems.add(
            "questions cannot be both left out and refused",
            where="--abstain",
            hint="leave out --answerable-only",
        )
    if settings.placeholder_tokens and settings.placeholder != "learned":
        problems.add("only --placeholder learned takes a number of positions", where="--placeholder-tokens")
    problems.raise_if_any()


def execute(settings: BlindTuneSettings, work: Work) -> None:
    """Take the images away and train the language model on the assistant's words."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.finetuning.blind_arms import prepare
    from priorkit.training.finetuning.finetune import learn

    learn(prepare(settings, work, started), settings, started, work, settings.step)


STEP = Step(BlindTuneSettings, plan, execute)
run = STEP.run
