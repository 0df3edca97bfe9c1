"""Tuning a LLaVA model: projector, language model and encoder, fully or with LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from priorkit.architectures.llava.settings import LlavaTuneSettings
from priorkit.core.inputs import Input
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.multimodal.llava import PARTS, LlavaMultimodal, has_linear_projector, load_llava
from priorkit.models.vision.image_tower import replace_image_tower
from priorkit.models.vision.loading import load_encoder
from priorkit.training.finetuning.conversation_source import mean_length, read_samples
from priorkit.training.finetuning.finetune import FinetuningRun, count_parameters
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import choose_features


def prepare(settings: LlavaTuneSettings, work: Work[None], runtime: Runtime) -> FinetuningRun:
    """Load the model, set the trainable parameters, read the instructions, build the objective."""
    multimodal = load_llava(work.inputs.one("mllm").path, settings.chat_template)
    multimodal.model.to(runtime.device)
    choose_attention(multimodal.model, runtime.device.type, runtime.precision)
    module = set_trainable(settings, multimodal)
    chat = multimodal.chat_tokenizer(settings.max_length)
    samples, metrics = read_samples(settings, work, "instructions", chat, settings.seed, images=True)
    length = mean_length(chat, samples) if settings.tokens else 1.0
    features = choose_features(
        multimodal,
        Pixels(samples.images, multimodal.prepare),
        trained="encoder" in settings.train,
        runtime=runtime,
        workers=settings.workers,
        epochs=settings.total_epochs(len(samples), length),
    )
    rates = {part: getattr(settings, f"{part}_learning_rate") or settings.learning_rate for part in PARTS}
    objective = InstructionObjective(
        multimodal,
        samples,
        chat,
        features,
        {part: rate / settings.learning_rate for part, rate in rates.items()},
        settings.packing,
        module,
        lengths_per_octave=settings.lengths_per_octave,
    )
    encoder = work.inputs.optional("export_encoder")

    def save(folder: Path) -> None:
        if settings.lora_rank:
            save_adapter(multimodal, module, work.inputs.one("mllm"), folder)
        else:
            multimodal.save(folder)
        if encoder is not None:
            export_encoder(multimodal, encoder.path, folder / "encoder")

    parts = count_parameters(module, multimodal.parameter_part, rates, PARTS)
    return FinetuningRun(objective, parts, save, length, metrics)


def set_trainable(settings: LlavaTuneSettings, multimodal: LlavaMultimodal) -> nn.Module:
    """Freeze the other parts; returns the module that holds the parameters (a PEFT wrapper with LoRA).

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
    """LoRA on every matrix of the language model's layers; PEFT copies and saves the other trained parts in full."""
    from peft import LoraConfig, get_peft_model

    modules = {"projector": "multi_modal_projector", "encoder": "vision_tower"}
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha or 2 * settings.lora_rank,
        lora_dropout=settings.lora_dropout,
        use_dora=settings.dora,
        target_modules=lora_targets(model.model.language_model),
        modules_to_save=[modules[part] for part in settings.train if part in modules] or None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def lora_targets(language_model: nn.Module) -> str:
    """A pattern of the names of all matrices in a language model's layers, in a LLaVA model."""
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


def export_encoder(multimodal: LlavaMultimodal, source: Path, folder: Path) -> None:
    """Write the tuned image tower as an encoder.

    Args:
        multimodal: the tuned model.
        source: the encoder whose text tower, projections and preprocessing are copied, so that Rank_e stays
            comparable; a resolution changed by ``align --image-tokens`` is kept, with its preprocessing.
        folder: where the encoder is written.
    """
    prefix = "vision_tower."
    tuned: dict[str, Any] = {}
    for name, value in multimodal.model.model.state_dict().items():
        if name.startswith(prefix):
            # PEFT keeps the original of a part that it saves in full.
            inner = name.removeprefix(prefix)
            if not inner.startswith("original_module."):
                tuned[inner.removeprefix("modules_to_save.default.")] = value
    encoder = load_encoder(source, text=False)
    replace_image_tower(
        encoder, tuned, multimodal.model.config.vision_config, multimodal.processor.image_processor
    )
    folder.mkdir()
    encoder.save(folder)
