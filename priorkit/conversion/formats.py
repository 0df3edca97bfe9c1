"""Which format weights are in, and the module that converts it."""

from __future__ import annotations

from pathlib import Path

import torch

from priorkit.conversion.conversion import Conversion
from priorkit.conversion.gguf import SUFFIX, plan_gguf
from priorkit.conversion.llava import is_llava, plan_llava
from priorkit.conversion.open_clip import CONFIG_FILE, is_model_config, plan_open_clip
from priorkit.conversion.settings import ConvertSettings, WeightFormat
from priorkit.conversion.torch_files import SUFFIXES
from priorkit.conversion.transformers_weights import plan_image_tower, plan_transformers
from priorkit.core.errors import InputError, Problems, UsageError
from priorkit.core.options.specs import refuse_changed
from priorkit.core.work import Inputs
from priorkit.models.language.conversation_formats import resolve_template

_UNUSED: dict[WeightFormat, tuple[str, ...]] = {
    "transformers": ("encoder", "tokenizer", "chat_template"),
    "gguf": ("config", "encoder", "tokenizer", "chat_template"),
    "open-clip": ("encoder", "chat_template"),
    "llava": ("config",),
}
"""Options that have no effect with a format."""


def recognize(path: Path, config: Path | None) -> WeightFormat:
    """The format of weights, by the files there are.

    Raises:
        InputError: none of those that can be converted.
    """
    if path.is_file():
        if path.suffix.lower() == SUFFIX:
            return "gguf"
        if path.suffix.lower() not in (*SUFFIXES, ".safetensors"):
            raise InputError(
                f"no format of weights that is known: {', '.join((*SUFFIXES, SUFFIX))}, .safetensors",
                where=str(path),
            )
        if (config is not None and config.is_file()) or (path.parent / CONFIG_FILE).is_file():
            return "open-clip"
        return "transformers"
    if is_llava(path):
        return "llava"
    if (path / CONFIG_FILE).is_file() or (
        config is not None and config.is_file() and is_model_config(config)
    ):
        return "open-clip"
    names = [file.suffix.lower() for file in path.rglob("*") if file.is_file()]
    if SUFFIX in names:
        return "gguf"
    if any(suffix in names for suffix in SUFFIXES):
        return "transformers"
    if ".safetensors" in names:
        raise InputError(
            "these weights are safetensors already",
            where=str(path),
            hint="give the folder to the step that needs it",
        )
    raise InputError(f"no weights here ({', '.join((*SUFFIXES, SUFFIX))})", where=str(path))


def _plan_part(settings: ConvertSettings, path: Path) -> Conversion:
    problems = Problems(UsageError)
    unused = ("format", "config", "encoder", "tokenizer", "chat_template")
    refuse_changed(settings, unused, problems, "has no effect with --part vision")
    problems.raise_if_any()
    return plan_image_tower(path, None if settings.dtype == "auto" else getattr(torch, settings.dtype))


def plan_conversion(settings: ConvertSettings, inputs: Inputs) -> Conversion:
    """Plan the conversion that the options ask for.

    Raises:
        InputError: the weights or what belongs to them are missing or broken.
        UsageError: options that have no effect with the format.
    """
    path, config = inputs.one("weights").path, inputs.optional("config")
    config_path = config.path if config else None
    if settings.part == "vision":
        return _plan_part(settings, path)
    chosen = recognize(path, config_path) if settings.format == "auto" else settings.format
    problems = Problems(UsageError)
    refuse_changed(settings, _UNUSED[chosen], problems, f"has no effect on weights in the format {chosen}")
    problems.raise_if_any()
    dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
    encoder, tokenizer = inputs.optional("encoder"), inputs.optional("tokenizer")
    tokenizer_path = tokenizer.path if tokenizer else None
    if chosen == "gguf":
        return plan_gguf(path, dtype)
    if chosen == "open-clip":
        return plan_open_clip(path, config_path, tokenizer_path, dtype)
    if chosen == "llava":
        template = resolve_template(settings.chat_template)
        return plan_llava(path, encoder.path if encoder else None, tokenizer_path, template, dtype)
    return plan_transformers(path, config_path, dtype)
