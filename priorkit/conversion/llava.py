"""LLaVA's original checkpoints (1.0 and 1.5) as transformers' LLaVA.

The release keeps a language model with a projector in it (``model.mm_projector``) and names its encoder in
``mm_vision_tower``; some checkpoints hold the tuned encoder too. transformers keeps the three as parts of one model
and writes an image as a token of its own, for which the embeddings get a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorkit.conversion.conversion import Conversion, check_fit
from priorkit.conversion.tensors import NewTensor, stored
from priorkit.conversion.transformers_weights import read_weights
from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import read_json
from priorkit.models.language.content_parts import accept_parts
from priorkit.models.language.conversation_formats import chat_template
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer
from priorkit.models.vision.image_tower import ImageTower, extract_image_tower, patch_side
from priorkit.models.vision.loading import check_encoder, load_encoder
from priorkit.models.vision.preprocessing import Resize

DEFAULT_TEMPLATE = "vicuna"
"""The conversation format of LLaVA 1.5, for tokenizers without a chat template."""

_PROJECTORS = {"linear": "linear", "mlp2x_gelu": "mlp"}
_RESIZES: dict[Any, Resize | None] = {"pad": "pad", "square": None, None: None}
_TOWER = "model.vision_tower.vision_tower."
_PROJECTOR = "model.mm_projector."
_EMBEDDINGS, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def is_llava(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of the original code."""
    return (folder / "config.json").is_file() and "mm_vision_tower" in read_json(folder / "config.json")


def plan_llava(
    path: Path, encoder: Path | None, tokenizer: Path | None, template: str | None, dtype: torch.dtype | None
) -> Conversion:
    """Plan the conversion of an original checkpoint.

    Args:
        path: its folder.
        encoder: the encoder that it names.
        tokenizer: where the tokenizer is, if not in the folder.
        template: a chat template; None for the tokenizer's, or else that of LLaVA 1.5.
        dtype: of the result; None keeps the types.

    Raises:
        InputError: a projector or image format that transformers' LLaVA does not have, no encoder, or weights that
            do not fit.
    """
    config = read_json(path / "config.json")
    projector = _projector(config, path)
    tower = _image_tower(config, encoder, path)
    tokens = _tokens(tokenizer or path, template)
    weights = read_weights(path)
    own = {name.removeprefix(_TOWER): tensor for name, tensor in weights.items() if name.startswith(_TOWER)}
    image = _tower_tensors(own, tower.model, path)
    rows = max(weights[_EMBEDDINGS].shape[0], len(tokens)) if _EMBEDDINGS in weights else len(tokens)
    tensors = {
        **{f"vision_tower.{name}": tensor for name, tensor in image.items()},
        **_projector_tensors(weights, projector),
        **_language_tensors(weights, rows),
    }
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in tensors.items()}
    new_config = _llava_config(config, tower, projector, rows, tokens, path)
    unused = check_fit("mllm", new_config, tensors, str(path))
    if unused:
        raise InputError(
            f"{len(unused)} tensors have no place in LLaVA, such as {min(unused)}", where=str(path)
        )

    def write_rest(folder: Path) -> None:
        from transformers import LlavaProcessor

        new_config.architectures = ["LlavaForConditionalGeneration"]
        new_config.dtype = tensors[f"language_model.{_EMBEDDINGS}"].dtype
        new_config.save_pretrained(folder)
        LlavaProcessor(
            image_processor=tower.image_processor,
            tokenizer=tokens,
            patch_size=patch_side(tower.config),
            vision_feature_select_strategy=new_config.vision_feature_select_strategy,
            num_additional_image_tokens=tower.prefix,
            chat_template=tokens.chat_template,
        ).save_pretrained(folder)
        if (path / "generation_config.json").is_file():
            content = json.dumps(read_json(path / "generation_config.json"), indent=2) + "\n"
            (folder / "generation_config.json").write_text(content, encoding="utf-8")

    return Conversion(
        "mllm",
        f"LLaVA of the original code with {config['mm_vision_tower']}"
        + (", its encoder tuned" if own else ""),
        lambda: tensors,
        sum(tensor.bytes for tensor in tensors.values()),
        write_rest,
    )


def _image_tower(config: Mapping[str, Any], encoder: Path | None, path: Path) -> ImageTower:
    """The image tower of the encoder that a checkpoint names.

    Raises:
        InputError: it is not given, or LLaVA cannot use it.
    """
    if encoder is None:
        raise InputError(
            f"its encoder '{config['mm_vision_tower']}' is not part of the checkpoint",
            where=str(path),
            hint=f"name it: --encoder {config['mm_vision_tower']}",
        )
    check_encoder(encoder, text=False)
    resize = _RESIZES[config.get("image_aspect_ratio")]
    return extract_image_tower(load_encoder(encoder, text=False), resize=resize)


def _tokens(folder: Path, template: str | None) -> Any:
    """The tokenizer with an image token and a chat template that takes lists of parts."""
    tokens = load_tokenizer(folder)
    if IMAGE not in tokens.get_vocab():
        tokens.add_special_tokens({"additional_special_tokens": [IMAGE]})
    tokens.chat_template = template or tokens.chat_template or chat_template(DEFAULT_TEMPLATE)
    accept_parts(tokens, IMAGE)
    return tokens


def _projector(config: Mapping[str, Any], path: Path) -> str:
    """``linear`` or ``mlp``.

    Raises:
        InputError: another one, or images in several crops.
    """
    kind = config.get("mm_projector_type", "linear")
    where = str(path / "config.json")
    if kind not in _PROJECTORS:
        raise InputError(
            f"transformers' LLaVA has no projector '{kind}'", where=where, hint="linear and mlp2x_gelu are"
        )
    aspect = config.get("image_aspect_ratio")
    if aspect not in _RESIZES:
        raise InputError(
            f"image_aspect_ratio is '{aspect}': the model reads several crops of an image, as LLaVA-NeXT does",
            where=where,
            hint="LLaVA 1.0 and 1.5 can be converted",
        )
    return _PROJECTORS[kind]


def _projector_tensors(weights: Mapping[str, NewTensor], kind: str) -> dict[str, NewTensor]:
    """The projector's tensors; the second matrix of a linear one is the identity."""
    found: dict[str, NewTensor] = {}
    for name, tensor in weights.items():
        if not name.startswith(_PROJECTOR):
            continue
        layer, _, part = name.removeprefix(_PROJECTOR).rpartition(".")
        number = {"": 1, "0": 1, "2": 2}.get(layer)
        found[f"multi_modal_projector.linear_{number}.{part}" if number else name] = tensor
    weight = found.get("multi_modal_projector.linear_1.weight")
    if kind == "linear" and weight is not None:
        width = weight.shape[0]
        identity = {
            "weight": torch.eye(width, dtype=weight.dtype),
            "bias": torch.zeros(width, dtype=weight.dtype),
        }
        found |= stored(
            {f"multi_modal_projector.linear_2.{part}": value for part, value in identity.items()}, Path()
        )
    return found


def _language_tensors(weights: Mapping[str, NewTensor], rows: int) -> dict[str, NewTensor]:
    """The language model's tensors, embeddings and head with as many rows as there are tokens."""
    found: dict[str, NewTensor] = {}
    for name, tensor in weights.items():
        if name.startswith((_TOWER, _PROJECTOR)) or name.endswith("rotary_emb.inv_freq"):
            continue
        if name in (_EMBEDDINGS, _HEAD) and tensor.shape[0] < rows:
            tensor = NewTensor(
                tensor.dtype,
                (rows, *tensor.shape[1:]),
                lambda tensor=tensor: with_mean_rows(tensor.read(), rows),
            )
        found[f"language_model.{name}"] = tensor
    return found


def with_mean_rows(table: Tensor, rows: int) -> Tensor:
    """A table ``[tokens, width]`` with further rows up to ``rows``, each the mean of those that are there."""
    mean = table.float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def _tower_tensors(own: Mapping[str, NewTensor], tower: Any, path: Path) -> Mapping[str, NewTensor]:
    """The image tower's tensors: the checkpoint's own where it holds them, else the encoder's."""
    encoder = stored(tower.state_dict(), path)
    if not own:
        return encoder
    plain = {re.sub(r"^vision_model\.", "", name): tensor for name, tensor in own.items()}
    return {name: plain.get(name, tensor) for name, tensor in encoder.items()}


_LANGUAGE_MODELS = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral"}


def _llava_config(
    config: Mapping[str, Any], tower: Any, projector: str, rows: int, tokens: Any, path: Path
) -> Any:
    from transformers import AutoConfig, LlavaConfig

    kind = str(config["model_type"])
    if kind not in _LANGUAGE_MODELS:
        raise InputError(
            f"a LLaVA on '{kind}' cannot be converted (valid: {', '.join(_LANGUAGE_MODELS)})", where=str(path)
        )
    left_out = (
        "model_type",
        "architectures",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "_name_or_path",
    )
    fields = {
        name: value
        for name, value in config.items()
        if name not in left_out and not name.startswith(("mm_", "tune_mm", "freeze_mm", "image_", "use_mm"))
    }
    with library_reads("its configuration is not valid", str(path / "config.json")):
        text = AutoConfig.for_model(_LANGUAGE_MODELS[kind], **{**fields, "vocab_size": rows})
    patches = config.get("mm_vision_select_feature", "patch") == "patch"
    drops_class_token = tower.prefix > 0 and patches
    return LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=tokens.convert_tokens_to_ids(IMAGE),
        image_seq_length=tower.patches + tower.prefix - int(drops_class_token),
        vision_feature_layer=int(config.get("mm_vision_select_layer", -2)),
        vision_feature_select_strategy="default" if drops_class_token else "full",
        projector_hidden_act="linear" if projector == "linear" else "gelu",
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
    )
