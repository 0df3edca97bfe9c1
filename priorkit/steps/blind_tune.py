"""Blind instruction tuning: a language model learns the instructions with the images withheld (LSBS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.artifact import Artifact
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import Count, StepSettings, argument, option, redefault
from priorkit.data.conversations import PLACEHOLDER, check_conversations, read_conversations
from priorkit.data.rejects import Rejects
from priorkit.training.settings import TrainingSettings


class BlindTuneSettings(TrainingSettings, StepSettings):
    """Options of ``priorkit blind-tune``."""

    step: ClassVar[str] = "blind-tune"
    kind: ClassVar[str] = "llm"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit blind-tune llm world/instructions/train.parquet --epochs 1 --out blind-llm",
        "priorkit blind-tune llm llava_v1_5_mix665k.json --placeholder keep --learning-rate 2e-5 --out blind-llm",
    )

    llm: str = argument("Language model to tune.", accepts=("llm",), hub="model")
    instructions: str = argument(
        "Instructions in LLaVA's format (JSON, JSON Lines, parquet); their images are not read.",
        accepts=("world",),
        metavar="INSTRUCTIONS",
        hub="dataset",
    )
    placeholder: Literal["drop", "keep"] = option(
        "drop", "What becomes of the image's place: dropped as in the paper, or kept as one token."
    )
    max_length: Count = option(0, "Longest conversation in tokens; 0 for what the model takes.", metavar="N")
    reject_limit: float = option(0.01, "Share of broken samples tolerated, 0 to 1.", ge=0, le=1)
    batch_size: int = redefault(TrainingSettings, "batch_size", 32)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.0)


def plan(settings: BlindTuneSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check model and instructions from headers."""
    from priorkit.models.llm import check_llm

    config = check_llm(inputs["llm"].path)
    files = check_conversations(inputs["instructions"].path)
    return Plan(
        [
            ("model", str(config["model_type"])),
            ("instructions", f"{len(files)} files, images withheld, placeholder: {settings.placeholder}"),
        ]
    )


def execute(settings: BlindTuneSettings, work: Work) -> None:
    """Take the images away and train the language model on the assistant's words."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.models.attention import choose_attention
    from priorkit.models.chat import ChatTokenizer
    from priorkit.models.llm import load_llm
    from priorkit.models.tokenizer import load_tokenizer
    from priorkit.training.instruction import TextInstructionObjective
    from priorkit.training.loop import train

    rejects = Rejects(settings.reject_limit)
    samples = read_conversations(work.inputs["instructions"].path, rejects)
    rejects.write(work.path)
    kept = PLACEHOLDER if settings.placeholder == "keep" else ""
    blind = [sample.without_images(kept) for sample in samples]
    folder = work.inputs["llm"].path
    model, tokenizer = load_llm(folder), load_tokenizer(folder)
    model.to(started.device)
    choose_attention(model, started.device.type)
    longest = settings.max_length or int(model.config.max_position_embeddings)
    objective = TextInstructionObjective(model, blind, ChatTokenizer(tokenizer, 1, longest))
    steps = settings.total_steps(len(blind), 1)
    summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    if runtime.rank() == 0:
        model.save_pretrained(work.path)
        tokenizer.save_pretrained(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        samples=len(blind),
        rejected=len(rejects),
        tokens=summary.weight,
    )
    work.cost.update(
        training_seconds=summary.seconds,
        samples_per_second=summary.steps * settings.batch_size / summary.seconds,
    )


def run(settings: BlindTuneSettings) -> Artifact | None:
    """Tune a language model blindly; see :class:`BlindTuneSettings`."""
    return produce(settings, plan, execute)
