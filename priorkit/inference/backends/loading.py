"""Which back end runs a model, checked from headers; loading it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.inference.backends.base import Backend
from priorkit.inference.backends.generate import GenerateBackend
from priorkit.inference.backends.settings import BackendChoice, BackendName
from priorkit.inference.backends.vllm_engine import check_vllm, load_vllm
from priorkit.inference.bos import BosRule, bos_ids_of
from priorkit.inference.loading import fold_adapter, max_length_of
from priorkit.inference.model_info import ModelInfo
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.conversation_formats import use_template
from priorkit.models.language.end_tokens import end_tokens_of
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer
from priorkit.models.multimodal.image_text import load_image_text_processor
from priorkit.models.pretrained import load_pretrained, refuse_missing_tensors


@dataclass(frozen=True)
class BackendOptions:
    """How a back end runs a model.

    Attributes:
        bos_token: whether prompts begin with the beginning-of-text token.
        max_image_pixels: larger images are scaled down to this; 0 leaves it to the processor.
        workers: threads that decode images.
        batch_size: rows per forward pass.
        chat_template: ``--chat-template``, which replaces the model's.
    """

    bos_token: BosRule = "auto"
    max_image_pixels: int = 0
    workers: int = 0
    batch_size: int = 32
    chat_template: str | None = None


def choose_backend(choice: BackendChoice, info: ModelInfo, given: str) -> BackendName:
    """The back end that will run a model.

    Args:
        choice: ``--backend``.
        info: the model.
        given: the model as the user named it.

    Raises:
        InputError: the back end does not run such a model.
        ResourceError: it is not installed.
    """
    if choice == "auto":
        return "priorkit" if info.native else "transformers"
    where = f"--backend {choice}"
    if choice == "priorkit" and not info.native:
        raise InputError(
            "priorkit's own loops run language models, LLaVA and LION only", where=where, hint="leave it out"
        )
    if choice != "priorkit" and (info.kind == "encoder" or not info.portable):
        raise InputError(f"{given} is run by priorkit only", where=where, hint="leave it out")
    if choice == "vllm":
        check_vllm()
        if info.adapter is not None:
            raise InputError(
                "vLLM would load the base model only",
                where=where,
                hint=f"fold the adapter in first: priorkit merge-adapters {given} --base {info.folder}",
            )
    return choice


def prompts_of(info: ModelInfo) -> tuple[Any, str]:
    """The tokenizer with the chat template that prompts are written by, and the placeholder of an image."""
    if info.kind == "mllm":
        processor, image_token = load_image_text_processor(info.folder)
        return processor.tokenizer, image_token
    return load_tokenizer(info.folder), IMAGE


def load_backend(name: BackendName, info: ModelInfo, started: Runtime, options: BackendOptions) -> Backend:
    """Load a model.

    Args:
        name: ``transformers`` or ``vllm``.
        info: as checked.
        started: device, precision and seed.
        options: how it is run.

    Raises:
        InputError: it cannot be loaded.
    """
    if name == "vllm":
        return _load_vllm(info, started, options)
    dtype = torch.bfloat16 if started.precision == "bf16" else torch.float32
    processor: Any = None
    image_token = IMAGE
    if info.kind == "mllm":
        from transformers import AutoModelForImageTextToText

        processor, image_token = load_image_text_processor(info.folder)
        tokenizer = processor.tokenizer
        model, report = load_pretrained(AutoModelForImageTextToText, info.folder, dtype=dtype)
        refuse_missing_tensors(report, info.folder)
    else:
        tokenizer, model = load_tokenizer(info.folder), load_llm(info.folder, dtype)
    use_template(tokenizer, options.chat_template, image_token)
    ends = end_tokens_of(getattr(model, "generation_config", None), tokenizer)
    model = fold_adapter(model, info).to(started.device).eval()
    return GenerateBackend(
        model,
        processor,
        tokenizer,
        image_token,
        max_length_of(model.config.get_text_config()),
        ends,
        bos_ids_of(tokenizer, options.bos_token),
        options.max_image_pixels,
        options.workers,
        options.batch_size,
    )


def _load_vllm(info: ModelInfo, started: Runtime, options: BackendOptions) -> Backend:
    from transformers import GenerationConfig

    tokenizer, image_token = prompts_of(info)
    use_template(tokenizer, options.chat_template, image_token)
    configured: Any = None
    if (info.folder / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(info.folder, local_files_only=True)
    backend = load_vllm(
        info.folder,
        tokenizer,
        image_token,
        end_tokens_of(configured, tokenizer),
        started.seed,
        started.precision,
        images=info.kind == "mllm",
    )
    backend.bos_ids = bos_ids_of(tokenizer, options.bos_token)
    backend.max_pixels, backend.workers = options.max_image_pixels, options.workers
    return backend
