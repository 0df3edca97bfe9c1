"""Blind instruction tuning: train a language model on instructions with the images withheld (LSBS)."""

from __future__ import annotations

from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.engine.settings import check_sharding
from priorkit.training.finetuning.blind_settings import BlindTuneSettings, check_arm


def plan(settings: BlindTuneSettings, inputs: Inputs) -> Plan[None]:
    """Check model, instructions and arm from headers."""
    from priorkit.models.folder import read_config, tensor_files
    from priorkit.models.language.causal_lm import check_llm
    from priorkit.models.language.chat_template import check_chat_template
    from priorkit.models.language.tokenizer import check_location_tokens, load_tokenizer
    from priorkit.models.multimodal.llava import check_llava, check_llava_chat_template
    from priorkit.training.engine.resource_estimates import footprint
    from priorkit.training.finetuning.conversation_source import check_sources

    check_sharding(settings)
    folder = inputs.one("llm").path
    multimodal = "vision_config" in read_config(folder)
    config = check_llava(folder) if multimodal else check_llm(folder)
    check_arm(settings, multimodal)
    if multimodal:
        check_llava_chat_template(folder, config, settings.chat_template)
    else:
        check_chat_template(load_tokenizer(folder, settings.chat_template), folder)
    size = footprint(tensor_files(folder), ("llm",))
    facts = check_sources(settings, inputs, "instructions")
    check_location_tokens(folder, settings.box_writer, inputs.one("llm").given)
    return Plan(
        [
            ("model", str(config["model_type"]) + ", its language model" * multimodal),
            *facts,
            ("arm", settings.arm),
        ],
        disk_bytes=size.disk_bytes,
        memory_bytes=size.memory_bytes if settings.device != "cuda" else 0,
        kind="mllm" if multimodal else "llm",
    )


def execute(settings: BlindTuneSettings, work: Work[None]) -> None:
    """Withhold the images and train the language model on the supervised tokens."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.finetuning.blind_tuning import prepare
    from priorkit.training.finetuning.finetune import train_and_save

    train_and_save(prepare(settings, work, started), settings, started, work, settings.step)


STEP = Step(BlindTuneSettings, plan, execute)
run = STEP.run
