"""Tuning a LLaVA model: projector, language model and encoder, whole or by LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from priorkit.architectures.lion.artifact import ADAPTER_CONFIG, is_lion_adapter
from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.runtime import Runtime
from priorkit.core.work import Plan, Work
from priorkit.data.conversations.sample_packing import COARSE, FINE
from priorkit.data.images.pixels import Pixels
from priorkit.models.folder import read_json, tensor_files
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.chat_template import ChatTokenizer
from priorkit.models.multimodal.llava import (
    Multimodal,
    check_chat,
    check_multimodal,
    is_linear,
    load_multimodal,
)
from priorkit.models.vision.image_tower import TOWER_CONCAT, image_tower_config, replace_image_tower
from priorkit.models.vision.loading import check_encoder, load_config, load_encoder
from priorkit.training.engine.resource_estimates import footprint
from priorkit.training.finetuning.conversation_source import check_sources, mean_length, read_samples
from priorkit.training.finetuning.finetune import Prepared, part_table
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import views_of

PARTS = ("projector", "llm", "encoder")


def plan(settings: Any, inputs: Mapping[str, Input]) -> Plan:
    """Check model, instructions and the parts to train from headers."""
    unknown = [part for part in settings.train if part not in PARTS]
    if unknown:
        raise UsageError(f"no part '{unknown[0]}'", where="--train", hint=nearest(unknown[0], PARTS))
    if settings.lora_rank and "llm" not in settings.train:
        raise UsageError(
            "LoRA trains the language model, with or without the other parts",
            where="--train",
            hint="add llm to --train, or leave --lora-rank out",
        )
    for name in ("lora_alpha", "lora_dropout", "dora"):
        if getattr(settings, name) and not settings.lora_rank:
            flag = "--" + name.replace("_", "-")
            raise UsageError("there is no LoRA to apply it to", where=flag, hint="give --lora-rank")
    for part in PARTS:
        if getattr(settings, f"{part}_learning_rate") and part not in settings.train:
            raise UsageError(
                f"the {part} is not trained", where=f"--{part}-learning-rate", hint="see --train"
            )
    folder = inputs["mllm"].path
    _refuse_adapter(inputs["mllm"])
    config = check_multimodal(folder)
    check_chat(folder, config)
    facts = check_sources(inputs, "instructions")
    longest = settings.max_length or int(config["text_config"].get("max_position_embeddings") or 1 << 30)
    tokens = int(config.get("image_seq_length") or 576)
    if tokens >= longest:
        raise UsageError(
            f"an image takes {tokens} tokens, the longest conversation is {longest}", where="--max-length"
        )
    if "export_encoder" in inputs:
        _check_export(settings, config, inputs["export_encoder"])
    frozen = [part for part in PARTS if part not in settings.train]
    size = footprint(tensor_files(folder), settings.train, settings.lora_rank, settings.dora)
    lora = f" ({'DoRA' if settings.dora else 'LoRA'} {settings.lora_rank})" if settings.lora_rank else ""
    return Plan(
        [
            *facts,
            ("image", f"{tokens} tokens"),
            ("trained", ", ".join(part + (lora if part == "llm" else "") for part in settings.train)),
            ("frozen", ", ".join(frozen) or "nothing"),
        ],
        disk_bytes=size.disk_bytes,
        memory_bytes=size.memory_bytes if settings.device != "cuda" else 0,
        kind="adapter" if settings.lora_rank else "mllm",
    )


def _refuse_adapter(given: Input) -> None:
    """An adapter is tuned further by LION alone, and on its base."""
    if not (given.path / ADAPTER_CONFIG).is_file() or (given.path / "config.json").is_file():
        return
    base = read_json(given.path / ADAPTER_CONFIG).get("base_model_name_or_path") or "BASE"
    if is_lion_adapter(given.path):
        hint = "tune it further with --architecture lion"
    else:
        hint = f"fold it in first: priorkit merge-adapters {given.given} --base {base} --out merged"
    raise InputError("this is an adapter, not a model", where=given.given, hint=hint)


def _check_export(settings: Any, config: Mapping[str, Any], source: Input) -> None:
    """The encoder that gives its text tower must have an image tower of the model's shape."""
    if "encoder" not in settings.train:
        raise UsageError(
            "the encoder is not trained, so it is the one that the model was aligned with",
            where="--export-encoder",
            hint="add encoder to --train",
        )
    if config["vision_config"].get("model_type") == TOWER_CONCAT:
        raise InputError(
            "the model sees by several encoders at once, of which none can be taken out alone",
            where="--export-encoder",
            hint="leave it out",
        )
    check_encoder(source.path, text=False)
    wanted, given = config["vision_config"], image_tower_config(load_config(source.path)).to_dict()
    for name in ("model_type", "hidden_size", "num_hidden_layers", "patch_size"):
        if name in wanted and wanted[name] != given.get(name):
            raise InputError(
                f"its image tower has {name} {given.get(name)}, the model's has {wanted[name]}",
                where=source.given,
                hint="give the encoder that the model was aligned with",
            )


def prepare(settings: Any, work: Work, runtime: Runtime) -> Prepared:
    """Load the model, set what trains, read the instructions, build the objective."""
    multimodal = load_multimodal(work.inputs["mllm"].path)
    multimodal.model.to(runtime.device)
    choose_attention(multimodal.model, runtime.device.type)
    module = choose_trained(settings, multimodal)
    chat = chat_of(multimodal, settings.max_length)
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
        part_table(module, multimodal.part_of, rates, PARTS),
        save,
        length,
        figures,
        lambda: {"useful_share": objective.useful_share},
    )


def chat_of(multimodal: Multimodal, max_length: int) -> ChatTokenizer:
    """The chat tokenizer of a multimodal model."""
    return ChatTokenizer(
        multimodal.tokenizer,
        multimodal.image_tokens,
        max_length or multimodal.max_length,
        multimodal.image_token,
    )


def compile_decoder(decoder: Any) -> None:
    """Compile a language model; one graph for each row length, of which there are few."""
    import torch

    for name in ("recompile_limit", "cache_size_limit"):
        if hasattr(torch._dynamo.config, name):
            setattr(torch._dynamo.config, name, 64)
    decoder.compile()


def choose_trained(settings: Any, multimodal: Multimodal) -> nn.Module:
    """Freeze what is not to be trained; returns what holds the parameters (a PEFT wrapper with LoRA).

    The second matrix of a linear projector is the identity and stays frozen.
    """
    model = multimodal.model
    if settings.lora_rank:
        module: Any = _with_lora(settings, model)
    else:
        module = model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(multimodal.part_of(name) in settings.train)
    if is_linear(model):
        for name, parameter in module.named_parameters():
            if "multi_modal_projector" in name and "linear_2" in name:
                parameter.requires_grad_(False)
    return module


def _with_lora(settings: Any, model: Any) -> Any:
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


def save_adapter(multimodal: Multimodal, module: Any, base: Input, folder: Path) -> None:
    """Save a PEFT adapter that names its base, with the processor."""
    module.peft_config["default"].base_model_name_or_path = (
        base.given if base.revision else str(base.path.resolve())
    )
    module.save_pretrained(folder)
    multimodal.processor.save_pretrained(folder)


def export_encoder(multimodal: Multimodal, module: Any, source: Path, folder: Path) -> None:
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
