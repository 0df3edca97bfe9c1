"""Align an encoder with a language model: train the projector between them on captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.engine.settings import check_sharding
from priorkit.training.finetuning.align_settings import AlignSettings

if TYPE_CHECKING:
    from priorkit.training.finetuning.align_check import AlignmentSizes


def plan(settings: AlignSettings, inputs: Inputs) -> Plan[AlignmentSizes]:
    """Check model, encoder and captions from headers."""
    from priorkit.training.finetuning.align_check import added_tokens, check_alignment
    from priorkit.training.finetuning.conversation_source import check_sources

    check_sharding(settings)
    sizes = check_alignment(settings, inputs)
    known = sizes.patches and sizes.vision_width
    image = f"{sizes.patches} tokens of width {sizes.vision_width}" if known else "as the encoder gives it"
    return Plan(
        [
            *check_sources(settings, inputs, "captions"),
            ("image", image),
            ("projector", f"{settings.projector}, {sizes.projector:,} parameters, trained"),
            ("llm, encoder", "frozen"),
            *added_tokens(settings, inputs),
        ],
        disk_bytes=sizes.disk_bytes(settings.keep),
        memory_bytes=sizes.memory_bytes,
        payload=sizes,
    )


def execute(settings: AlignSettings, work: Work[AlignmentSizes]) -> None:
    """Join the models by a fresh projector, freeze everything else, train it on the captions."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.finetuning.alignment import prepare
    from priorkit.training.finetuning.finetune import train_and_save

    train_and_save(prepare(settings, work, started), settings, started, work, settings.step)


STEP = Step(AlignSettings, plan, execute)
run = STEP.run
