"""Checking and loading encoders: CLIP, SigLIP and their like with a text tower; DINOv2, ViT, MAE, timm without."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import read_config, read_json, tensor_files
from priorkit.models.pretrained import load_preprocessor, load_pretrained, refuse_missing_tensors
from priorkit.models.vision.encoder import Encoder
from priorkit.models.vision.processor_settings import PROCESSOR_FILES, check_processor
from priorkit.models.vision.towers import register_tower

TIMM = "timm_wrapper"
"""The model type of timm's models in transformers."""

POOLS_END_TOKEN = ("clip", "metaclip_2", "aimv2")
"""Model types whose text tower reads a text's feature at the end token, or at the first token where there is none."""

LEGACY_END = 2
"""This end token in a CLIP configuration stands for the one with the largest id (transformers, before 4.31)."""


def check_encoder(folder: Path, text: bool = True) -> dict[str, Any]:
    """Check from headers that a folder is an image encoder.

    Args:
        folder: a model in Hugging Face's or timm's layout.
        text: whether a text tower is required.

    Returns:
        Its ``config.json``; ``model_type`` is ``timm_wrapper`` for timm's own layout.

    Raises:
        InputError: not a model, another kind of model, weights or preprocessing missing, or no text tower
            where one is required, or one that cannot tell texts apart.
    """
    config = _read_config(folder)
    kind = config["model_type"]
    dual = "text_config" in config and ("vision_config" in config or "image_config" in config)
    if kind.startswith("llava"):
        raise InputError("expected an encoder, got a multimodal model", where=str(folder))
    if not dual and text:
        raise InputError(
            f"'{kind}' has no text tower; an encoder with one is needed, such as CLIP or SigLIP",
            where=str(folder),
        )
    model_class = _model_class(folder)
    if dual and not hasattr(model_class, "get_text_features"):
        raise InputError(f"expected an encoder, got a multimodal model ('{kind}')", where=str(folder))
    if not dual and getattr(model_class, "main_input_name", "") != "pixel_values":
        raise InputError(f"expected an image encoder, got '{kind}'", where=str(folder))
    if kind != TIMM and not any((folder / name).is_file() for name in PROCESSOR_FILES):
        raise InputError("no image preprocessing (preprocessor_config.json is missing)", where=str(folder))
    check_processor(folder)
    tensor_files(folder)
    if text:
        check_end_token(folder)
    return config


def check_end_token(folder: Path) -> None:
    """Check that an encoder's tokenizer writes the end token at which its text tower reads a text's feature.

    Without it the feature is that of the first token, the same for every text.

    Raises:
        InputError: it does not, or cannot be loaded.
    """
    from transformers import AutoTokenizer

    config = load_config(folder)
    if config.model_type not in POOLS_END_TOKEN:
        return
    tokenizer = load_preprocessor(AutoTokenizer, folder)
    end = config.text_config.eos_token_id
    if config.model_type == "clip" and end == LEGACY_END:
        end = tokenizer.eos_token_id
    if end not in tokenizer("a")["input_ids"]:
        name = None if end is None else tokenizer.convert_ids_to_tokens(end)
        raise InputError(
            f"its tokenizer writes no end token ({name}, id {end}), at which the text tower reads a text's "
            "feature, so that all names would be the same to it",
            where=str(folder),
            hint="let the tokenizer end texts with it, or set text_config.eos_token_id to the token it writes",
        )


def _read_config(folder: Path) -> dict[str, Any]:
    if folder.is_dir() and (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        if "model_type" not in config and "architecture" in config and "pretrained_cfg" in config:
            return {"model_type": TIMM, **config}
    return read_config(folder)


def load_config(folder: Path) -> Any:
    """An encoder's configuration as transformers reads it, with its defaults; see ``towers.tower_config``.

    Raises:
        InputError: transformers cannot read it.
    """
    from transformers import AutoConfig

    with library_reads("its configuration cannot be read", str(folder / "config.json")):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _model_class(folder: Path) -> Any:
    """The class that ``AutoModel`` would build."""
    from transformers import MODEL_MAPPING

    config = load_config(folder)
    register_tower(config.model_type)
    classes = MODEL_MAPPING.get(type(config), None)
    return classes[0] if isinstance(classes, tuple | list) else classes


def load_encoder(folder: Path, text: bool = True) -> Encoder:
    """Load an encoder in fp32 with its image processor and, with a text tower, its tokenizer.

    Args:
        folder: a model in Hugging Face's or timm's layout.
        text: whether a text tower is required.

    Raises:
        InputError: it cannot be loaded, or has no text tower where one is required.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    check_encoder(folder, text)
    model, info = load_pretrained(AutoModel, folder, dtype=torch.float32)
    refuse_missing_tensors(_drop_missing_pooler(model, info), folder)
    processor = load_preprocessor(AutoImageProcessor, folder)
    dual = hasattr(model, "get_text_features")
    tokenizer = load_preprocessor(AutoTokenizer, folder) if dual else None
    model.eval()
    encoder = Encoder(model, processor, tokenizer)
    # One plain image shows what no header does: sizes, means or layers that do not go together.
    with library_reads("its image processor and image tower do not work together", str(folder)):
        _ = encoder.shape
    return encoder


def encoder_loader(folder: Path, device: torch.device, text: bool = True) -> Callable[[], Encoder]:
    """A function that loads an encoder onto a device at its first call, see :func:`load_encoder`."""

    @cache
    def load() -> Encoder:
        encoder = load_encoder(folder, text)
        encoder.model.to(device)
        return encoder

    return load


def _drop_missing_pooler(model: Any, info: dict[str, Any]) -> dict[str, Any]:
    """Remove a pooler without weights in the checkpoint (DINO's ViT); the class token is then the feature."""
    missing = [str(name) for name in info.get("missing_keys", [])]
    if getattr(model, "pooler", None) is None or not any(name.startswith("pooler.") for name in missing):
        return info
    model.pooler = None
    return {**info, "missing_keys": [name for name in missing if not name.startswith("pooler.")]}
