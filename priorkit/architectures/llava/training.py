"""Tuning a LLaVA model: projector, language model and encoder, whole or by LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from priorkit.architectures.llava.settings import LlavaTuneSettings
from priorkit.core.inputs import Input
from priorkit.core.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.conversations.sample_packing import COARSE, FINE
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.multimodal.llava import PARTS, LlavaMultimodal, has_linear_projector, load_llava
from priorkit.models.vision.image_tower import replace_image_tower
from priorkit.models.vision.loading import load_encoder
from priorkit.training.finetuning.conversation_source import mean_length, read_samples
from priorkit.training.finetuning.finetune import Prepared, part_table
from priorkit.training.finetuning.objective import InstructionObjective, compile_decoder
from priorkit.training.finetuning.vision_features import views_of


def prepare(settings: LlavaTuneSettings, work: Work, runtime: Runtime) -> Prepared:
    """Load the model, set what trains, read the instructions, build the objective."""
    multimodal = load_llava(work.inputs["mllm"].path)
    multimodal.model.to(runtime.device)
    choose_attention(multimodal.model, runtime.device.type)
    module = choose_trained(settings, multimodal)
    chat = multimodal.chat_tokenizer(settings.max_length)
    samples, figures = read_samples(settings, work, "instructions", chat, settings.seed, images=True)
    length = mean_length(chat, samples) if settings.tokens else 1.0
    passes = settings.total_steps(len(samples), length) * settings.batch_size / len(samples)
    trained = "encoder" in settings.train
    views = views_of(
        multimodal,
        Pixels(samples.images, multimodal.prepare),
        trained=trained,
        runtime=runtime,
        workers=settings.workers,
        passes=passes,
    )
    rates = {part: getattr(settings, f"{part}_learning_rate") or settings.learning_rate for part in PARTS}
    objective = InstructionObjective(
        multimodal,
        samples,
        chat,
        views,
        {part: rate / settings.learning_rate for part, rate in rates.items()},
        settings.packing,
        module,
        lengths_per_octave=COARSE if settings.compile else FINE,
    )
    if settings.compile:
        compile_decoder(multimodal.model.model.language_model)

    def save(folder: Path) -> None:
        if settings.lora_rank:
            save_adapter(multimodal, module, work.inputs["mllm"], folder)
        else:
            multimodal.save(folder)
        if "export_encoder" in work.inputs:
            export_encoder(multimodal, module, work.inputs["export_encoder"].path, folder / "encoder")

    return Prepared(
        objective,
        part_table(module, multimodal.parameter_part, rates, PARTS),
        save,
        length,
        figures,
        lambda: {"useful_share": objective.useful_share},
    )


def choose_trained(settings: LlavaTuneSettings, multimodal: LlavaMultimodal) -> nn.Module:
    """Freeze what is not to be trained; returns what holds the parameters (a PEFT wrapper with LoRA).

    The second matrix of a linear projector is the identity and stays frozen.
    """
    model = multimodal.model
    if settings.lora_rank:
        module: Any = _with_lora(settings, model)
    else:
        module = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(multimodal.parameter_part(name) in settings.train)
    if has_linear_projector(model):
        for name, parameter in module.named_parameters():
            if "multi_modal_projector" in name and "linear_2" in name:
                parameter.requires_grad_(False)
    return module


def _with_lora(settings: LlavaTuneSettings, model: Any) -> Any:
    """LoRA on every matrix of the language model's layers; other trained parts are saved whole with it."""
    from peft import LoraConfig, get_peft_model

    whole = {"projector": "multi_modal_projector", "encoder": "vision_tower"}
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        use_dora=settings.dora,
        target_modules=lora_targets(model.model.language_model),
        modules_to_save=[whole[part] for part in settings.train if part in whole] or None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def lora_targets(language_model: nn.Module) -> str:
    """A pattern for the names of all matrices in a language model's layers, within a LLaVA model."""
    names = {
        name.rpartition(".")[2]
        for name, module in language_model.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    }
    return rf".*language_model\..*\.({'|'.join(sorted(names))})"


def save_adapter(multimodal: LlavaMultimodal, module: Any, base: Input, folder: Path) -> None:
    """Save a PEFT adapter that names its base, with the processor."""
    module.peft_config["default"].base_model_name_or_path = (
        base.given if base.revision else str(base.path.resolve())
    )
    module.save_pretrained(folder)
    multimodal.processor.save_pretrained(folder)


def export_encoder(multimodal: LlavaMultimodal, module: Any, source: Path, folder: Path) -> None:
    """Write the tuned image tower as an encoder, with what the encoder it came from has beside it.

    Text tower, projections and preprocessing are those of ``source``, so that Rank_e stays comparable. A
    resolution changed by ``align --image-tokens`` is kept, with its preprocessing.
    """
    prefix = "vision_tower."
    tuned: dict[str, Any] = {}
    for name, value in multimodal.model.model.state_dict().items():
        if name.startswith(prefix):
            # PEFT keeps a part that is saved whole beside the original.
            own = name.removeprefix(prefix)
            if own.startswith("original_module."):
                continue
            tuned[own.removeprefix("modules_to_save.default.")] = value
    encoder = load_encoder(source, text=False)
    replace_image_tower(
        encoder, tuned, multimodal.model.config.vision_config, multimodal.processor.image_processor
    )
    folder.mkdir()
    encoder.save(folder)
