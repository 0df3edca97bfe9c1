"""open_clip's models that transformers has a class for: CLIP with vision transformers (LAION, MetaCLIP, DFN) and SigLIP.

The architecture is in ``open_clip_config.json``, which open_clip uploads with a model, or in a model configuration
that its package ships (``open_clip/model_configs/NAME.json``). The two libraries compute the same function; names
differ, and open_clip keeps the three attention projections in one matrix.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from priorkit.conversion.conversion import Conversion, check_fit
from priorkit.conversion.open_clip_configs import configuration
from priorkit.conversion.open_clip_names import renamed
from priorkit.conversion.open_clip_tokenizers import clip_tokenizer, siglip_tokenizer, tokenizer_source
from priorkit.conversion.transformers_weights import read_weights
from priorkit.core.errors import InputError
from priorkit.models.folder import read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""open_clip's files on the hub, the first that is there."""

_PREPROCESSING: dict[str, dict[str, Any]] = {
    "clip": {
        "mean": (0.48145466, 0.4578275, 0.40821073),
        "std": (0.26862954, 0.26130258, 0.27577711),
        "resize_mode": "shortest",
        "interpolation": "bicubic",
    },
    "siglip": {
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "resize_mode": "squash",
        "interpolation": "bicubic",
    },
}
"""open_clip's, where a model's configuration says nothing else: OpenAI's and SigLIP's."""


def plan_open_clip(
    path: Path, config: Path | None, tokenizer: Path | None, dtype: torch.dtype | None
) -> Conversion:
    """Plan the conversion of an open_clip checkpoint.

    Args:
        path: a folder as on the hub, or a file of weights.
        config: a model configuration, where there is no ``open_clip_config.json``.
        tokenizer: where the tokenizer is, if not in the folder.
        dtype: of the result; None keeps the types.

    Raises:
        InputError: an architecture that transformers has no class for, or weights that do not fit.
    """
    folder = path if path.is_dir() else path.parent
    where = config or folder / CONFIG_FILE
    given = read_json(where)
    model = given.get("model_cfg", given)
    new: Any = configuration(model, str(where))
    weights = (
        path if path.is_file() else next((path / name for name in WEIGHTS if (path / name).is_file()), path)
    )
    scalar = (1,) if new.model_type == "siglip" else ()
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in renamed(read_weights(weights), scalar)}
    unused = check_fit("encoder", new, tensors, str(weights))
    if unused:
        raise InputError(
            f"{len(unused)} tensors have no place in {type(new).__name__.removesuffix('Config')}, such as "
            f"{min(unused)}",
            where=str(weights),
            hint="use the model in transformers' format, if there is one",
        )
    processor = _image_processor(new, given.get("preprocess_cfg") or {}, str(where))
    tokens = _tokenizer(new, model["text_cfg"], tokenizer, path, str(where))

    def write_rest(target: Path) -> None:
        new.architectures = [type(new).__name__.removesuffix("Config") + "Model"]
        new.dtype = next(iter(tensors.values())).dtype
        new.save_pretrained(target)
        processor.save_pretrained(target)
        tokens.save_pretrained(target)

    size = sum(tensor.bytes for tensor in tensors.values())
    name = "SigLIP" if new.model_type == "siglip" else "CLIP"
    return Conversion(
        "encoder", f"{name} of open_clip, {len(tensors)} tensors", lambda: tensors, size, write_rest
    )


def _tokenizer(config: Any, text: Mapping[str, Any], given: Path | None, weights: Path, where: str) -> Any:
    """The text tower's tokenizer; the configuration takes SigLIP's special tokens from it.

    Raises:
        InputError: there is none, or another model's.
    """
    folder = weights if weights.is_dir() else weights.parent
    if config.model_type == "clip":
        hint = "name CLIP's with --tokenizer: openai/clip-vit-base-patch32, or open_clip's bpe_simple_vocab_16e6.txt.gz"
        source = tokenizer_source(folder, given, weights, hint)
        return clip_tokenizer(
            source, config.text_config.max_position_embeddings, config.text_config.vocab_size
        )
    named = text.get("hf_tokenizer_name") or "the one it was trained with (timm/ViT-B-16-SigLIP, -SigLIP2)"
    hint = f"name its tokenizer with --tokenizer, a folder or a hub id: {named}"
    tokenizer = siglip_tokenizer(tokenizer_source(folder, given, weights, hint), text, where)
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config.text_config, name, getattr(tokenizer, name))
    return tokenizer


def _image_processor(config: Any, given: Mapping[str, Any], where: str) -> Any:
    """open_clip's transform as an image processor: shortest side and center crop, or squashed.

    Raises:
        InputError: images are resized in another way.
    """
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessor

    size = config.vision_config.image_size
    said = {name: value for name, value in given.items() if value}
    preprocessing = _PREPROCESSING[config.model_type] | said
    mode, filter_name = str(preprocessing["resize_mode"]), str(preprocessing["interpolation"])
    if mode not in ("shortest", "squash"):
        raise InputError(
            f"preprocess_cfg.resize_mode is '{mode}', not 'shortest' or 'squash'",
            where=where,
            hint="change it in the file if the model reads such images too",
        )
    filters = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}
    squash = mode == "squash"
    return CLIPImageProcessor(
        size={"height": size, "width": size} if squash else {"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_center_crop=not squash,
        resample=filters.get(filter_name, Resampling.BICUBIC),
        image_mean=list(preprocessing["mean"]),
        image_std=list(preprocessing["std"]),
    )


def is_model_config(path: Path) -> bool:
    """Whether a file is a model configuration of open_clip."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    model = value.get("model_cfg", value) if isinstance(value, dict) else {}
    return isinstance(model, dict) and {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys()
