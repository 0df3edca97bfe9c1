"""Loading a checked model for inference: language models and multimodal models, with adapters folded in."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch

from priorkit.core.errors import InputError, library_reads
from priorkit.inference.model_adapter import ModelAdapter
from priorkit.inference.model_info import ModelInfo
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.conversation_formats import use_template
from priorkit.models.language.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)


def load_model_adapter(
    info: ModelInfo,
    device: torch.device,
    dtype: torch.dtype | None = None,
    workers: int = 0,
    template: str | None = None,
) -> ModelAdapter:
    """Load a language model or multimodal model with its adapter, and put it on a device.

    Args:
        info: as checked.
        device: where to.
        dtype: of a language model's weights; fp32 where not given.
        workers: threads that decode and prepare images.
        template: ``--chat-template``, which replaces the model's.

    Raises:
        InputError: it cannot be loaded.
    """
    if info.format is not None:
        multimodal = info.format.load_for_inference(info)
        multimodal.model.to(device).eval()
        use_template(multimodal.tokenizer, template, multimodal.image_token)
        limit = multimodal.max_length
        return ModelAdapter(multimodal.model, multimodal.tokenizer, limit, multimodal, workers)
    model = fold_adapter(load_llm(info.folder, dtype), info).to(device).eval()
    tokenizer = load_tokenizer(info.folder, template)
    return ModelAdapter(model, tokenizer, max_length_of(model.config))


def fold_adapter(model: Any, info: ModelInfo) -> Any:
    """The model with a PEFT adapter merged into its weights; as it is where there is none.

    Raises:
        InputError: the adapter cannot be loaded, or does not fit.
    """
    if info.adapter is None:
        return model
    from peft import PeftModel

    logger.info(f"  adapter {info.adapter} on {info.folder}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with library_reads("the adapter cannot be loaded", str(info.adapter)):
            adapted: Any = PeftModel.from_pretrained(model, str(info.adapter), local_files_only=True)
    missing = [str(item.message) for item in caught if "missing adapter keys" in str(item.message)]
    if missing:
        raise InputError(f"the adapter does not fit its base: {missing[0][:200]}", where=str(info.adapter))
    return adapted.merge_and_unload()


def max_length_of(config: Any) -> int:
    """The most positions a language model takes, by its configuration."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int):
            return value
    return 2048
