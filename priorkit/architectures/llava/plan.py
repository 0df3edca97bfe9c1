"""The plan of tuning a LLaVA model: options, model and data, checked from headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from priorkit.architectures.llava.settings import LlavaTuneSettings
from priorkit.architectures.registry import owner_of
from priorkit.core.errors import InputError, UsageError, nearest
from priorkit.core.inputs import Input
from priorkit.core.options.specs import flag_of
from priorkit.core.work import Inputs, Plan
from priorkit.inference.model_info import ADAPTER_CONFIG
from priorkit.models.folder import read_json, tensor_files
from priorkit.models.language.tokenizer import check_location_tokens
from priorkit.models.multimodal.llava import PARTS, check_llava, check_llava_chat_template
from priorkit.models.vision.image_tower import TOWER_CONCAT, image_tower_config
from priorkit.models.vision.loading import check_encoder, load_config
from priorkit.training.engine.resource_estimates import footprint
from priorkit.training.finetuning.conversation_source import check_sources


def plan(settings: LlavaTuneSettings, inputs: Inputs) -> Plan[None]:
    """Check model, instructions and the parts to train from headers."""
    unknown = [part for part in settings.train if part not in PARTS]
    if unknown:
        raise UsageError(f"no part '{unknown[0]}'", where="--train", hint=nearest(unknown[0], PARTS))
    if settings.lora_rank and "llm" not in settings.train:
        raise UsageError(
            "LoRA trains the language model, which --train leaves out",
            where="--train",
            hint="add llm to --train, or leave --lora-rank out",
        )
    for name in ("lora_alpha", "lora_dropout", "dora"):
        if getattr(settings, name) and not settings.lora_rank:
            raise UsageError(
                "only has an effect with LoRA", where=flag_of(type(settings), name), hint="give --lora-rank"
            )
    for part in PARTS:
        if getattr(settings, f"{part}_learning_rate") and part not in settings.train:
            raise UsageError(
                f"the {part} is not trained", where=f"--{part}-learning-rate", hint="see --train"
            )
    folder = inputs.one("mllm").path
    _refuse_adapter(inputs.one("mllm"))
    config = check_llava(folder)
    check_llava_chat_template(folder, config, settings.chat_template)
    facts = check_sources(settings, inputs, "instructions")
    check_location_tokens(folder, settings.box_writer, inputs.one("mllm").given)
    longest = settings.max_length or int(config["text_config"].get("max_position_embeddings") or 1 << 30)
    tokens = int(config.get("image_seq_length") or 576)
    if tokens >= longest:
        raise UsageError(
            f"an image takes {tokens} tokens, the longest conversation is {longest}", where="--max-length"
        )
    if (encoder := inputs.optional("export_encoder")) is not None:
        _check_export(settings, config, encoder)
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
    """Refuse a PEFT adapter, which cannot be tuned further; other architectures may take their adapters."""
    if not (given.path / ADAPTER_CONFIG).is_file() or (given.path / "config.json").is_file():
        return
    base = read_json(given.path / ADAPTER_CONFIG).get("base_model_name_or_path") or "BASE"
    if owner := owner_of(given.path):
        hint = f"tune it further with --architecture {owner}"
    else:
        hint = f"fold it in first: priorkit merge-adapters {given.given} --base {base} --out merged"
    raise InputError("this is an adapter, not a model", where=given.given, hint=hint)


def _check_export(settings: LlavaTuneSettings, config: Mapping[str, Any], source: Input) -> None:
    """Check that the encoder whose text tower is copied has an image tower of the model's shape."""
    if "encoder" not in settings.train:
        raise UsageError(
            "the encoder is frozen: it is the one that the model was aligned with",
            where="--export-encoder",
            hint="add encoder to --train",
        )
    if config["vision_config"].get("model_type") == TOWER_CONCAT:
        raise InputError(
            "the model has several concatenated encoders, which cannot be exported",
            where="--export-encoder",
            hint="leave it out",
        )
    check_encoder(source.path, text=False)
    expected, given = config["vision_config"], image_tower_config(load_config(source.path)).to_dict()
    for name in ("model_type", "hidden_size", "num_hidden_layers", "patch_size"):
        if name in expected and expected[name] != given.get(name):
            raise InputError(
                f"its image tower has {name} {given.get(name)}, the model's has {expected[name]}",
                where=source.given,
                hint="give the encoder that the model was aligned with",
            )
