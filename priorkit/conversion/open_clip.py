"""open_clip's CLIP models with vision transformers (LAION, MetaCLIP, DFN, OpenAI's sizes) as transformers' CLIP.

The architecture is in ``open_clip_config.json``, which open_clip uploads with a model, or in a model configuration
that its package ships (``open_clip/model_configs/NAME.json``). The two libraries compute the same function; names
differ, and open_clip keeps the three attention projections in one matrix.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from priorkit.conversion.conversion import Conversion, check_fit
from priorkit.conversion.tensors import NewTensor
from priorkit.conversion.transformers_weights import read_weights
from priorkit.core.errors import InputError, library_reads
from priorkit.models.folder import read_json

CONFIG_FILE = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""open_clip's files on the hub, the first that is there."""

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""OpenAI's normalization, which open_clip uses where a model says nothing else."""

_LAYER_NORM_EPS = 1e-5
_PLAIN_VISION = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"}
_PLAIN_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}
_WITHOUT_EFFECT = {"output_tokens", "hf_tokenizer_name", "tokenizer_kwargs", "block_type"}

_MERGES = 49152 - 256 - 2
"""Merges that CLIP's tokenizer reads of its file."""


def plan_open_clip(
    path: Path, config: Path | None, tokenizer: Path | None, dtype: torch.dtype | None
) -> Conversion:
    """Plan the conversion of an open_clip checkpoint.

    Args:
        path: a folder as on the hub, or a file of weights.
        config: a model configuration, where there is no ``open_clip_config.json``.
        tokenizer: where CLIP's tokenizer is, if not in the folder.
        dtype: of the result; None keeps the types.

    Raises:
        InputError: another architecture than CLIP with a vision transformer, or weights that do not fit.
    """
    folder = path if path.is_dir() else path.parent
    given = read_json(config or folder / CONFIG_FILE)
    model, preprocessing = given.get("model_cfg", given), given.get("preprocess_cfg", {})
    where = str(config or folder / CONFIG_FILE)
    clip = _clip_config(model, where)
    weights = (
        path if path.is_file() else next((path / name for name in WEIGHTS if (path / name).is_file()), path)
    )
    renamed = dict(_renamed(read_weights(weights)))
    tensors = {name: tensor.as_dtype(dtype) for name, tensor in renamed.items()}
    unused = check_fit("encoder", clip, tensors, str(weights))
    if unused:
        raise InputError(
            f"{len(unused)} tensors have no place in CLIP, such as {min(unused)}",
            where=str(weights),
            hint="use the model in transformers' format, if there is one",
        )
    tokens = _clip_tokenizer(
        _tokenizer_source(folder, tokenizer, path),
        clip.text_config.max_position_embeddings,
        clip.text_config.vocab_size,
    )

    def write_rest(target: Path) -> None:
        clip.architectures, clip.dtype = ["CLIPModel"], next(iter(tensors.values())).dtype
        clip.save_pretrained(target)
        _image_processor(clip.vision_config.image_size, preprocessing).save_pretrained(target)
        tokens.save_pretrained(target)

    size = sum(tensor.bytes for tensor in tensors.values())
    return Conversion(
        "encoder", f"CLIP of open_clip, {len(tensors)} tensors", lambda: tensors, size, write_rest
    )


def _clip_config(model: Mapping[str, Any], where: str) -> Any:
    """The configuration of transformers' CLIP.

    Raises:
        InputError: a part that CLIP does not have.
    """
    from transformers import CLIPConfig

    vision, text = (cast("Mapping[str, Any]", model.get(key) or {}) for key in ("vision_cfg", "text_cfg"))
    other = {f"vision_cfg.{name}" for name in vision.keys() - _PLAIN_VISION - _WITHOUT_EFFECT if vision[name]}
    other |= {f"text_cfg.{name}" for name in text.keys() - _PLAIN_TEXT - _WITHOUT_EFFECT if text[name]}
    if "embed_dim" not in model or not vision or not text:
        raise InputError("no model configuration of open_clip (embed_dim, vision_cfg, text_cfg)", where=where)
    if other or isinstance(vision.get("layers"), list):
        names = ", ".join(sorted(other)) or "vision_cfg.layers, a list"
        raise InputError(
            f"only CLIP with plain vision and text transformers can be converted, not with {names}",
            where=where,
            hint="use the model in transformers' format, or its image tower from timm",
        )
    width, heads = int(vision["width"]), int(vision["width"]) // int(vision.get("head_width", 64))
    size = vision.get("image_size", 224)
    size = int(size if isinstance(size, int) else size[0])
    common = {
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "layer_norm_eps": _LAYER_NORM_EPS,
    }
    text_width, vocabulary = int(text["width"]), int(text.get("vocab_size", 49408))
    return CLIPConfig(
        projection_dim=int(model["embed_dim"]),
        vision_config={
            **common,
            "hidden_size": width,
            "intermediate_size": int(width * float(vision.get("mlp_ratio", 4.0))),
            "num_hidden_layers": int(vision["layers"]),
            "num_attention_heads": heads,
            "patch_size": int(vision["patch_size"]),
            "image_size": size,
            "projection_dim": int(model["embed_dim"]),
        },
        text_config={
            **common,
            "hidden_size": text_width,
            "intermediate_size": int(text_width * float(text.get("mlp_ratio", 4.0))),
            "num_hidden_layers": int(text["layers"]),
            "num_attention_heads": int(text["heads"]),
            "max_position_embeddings": int(text.get("context_length", 77)),
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "projection_dim": int(model["embed_dim"]),
        },
    )


_OUTSIDE_LAYERS = {
    "logit_scale": "logit_scale",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
}
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_IN_LAYERS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BUFFERS = ("attn_mask", "input_resolution", "context_length", "vocab_size", "position_ids")


def _renamed(tensors: Mapping[str, NewTensor]) -> Iterator[tuple[str, NewTensor]]:
    """The tensors under transformers' names; those without a place keep theirs."""
    for name, tensor in tensors.items():
        # The text tower of models with ``custom_text`` is a part of its own.
        plain = name.removeprefix("text.")
        module, _, kind = plain.rpartition(".")
        if plain in _BUFFERS or plain.rpartition(".")[2] in _BUFFERS:
            continue
        if plain in _OUTSIDE_LAYERS:
            shape = () if plain == "logit_scale" else tensor.shape
            yield (
                _OUTSIDE_LAYERS[plain],
                _derived(tensor, shape, lambda value, shape=shape: value.reshape(shape)),
            )
        elif module in _OUTSIDE_LAYERS:
            yield f"{_OUTSIDE_LAYERS[module]}.{kind}", tensor
        elif plain in _TRANSPOSED:
            yield _TRANSPOSED[plain], _derived(tensor, tensor.shape[::-1], lambda value: value.T)
        elif "transformer.resblocks." in plain:
            yield from _layer(plain, tensor)
        else:
            yield name, tensor


def _layer(name: str, tensor: NewTensor) -> Iterator[tuple[str, NewTensor]]:
    """A tensor of a layer; the fused projection is split in three."""
    tower = "vision_model" if name.startswith("visual.") else "text_model"
    number, _, rest = name.partition("transformer.resblocks.")[2].partition(".")
    lead = f"{tower}.encoder.layers.{number}"
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        third = tensor.shape[0] // 3
        for index, letter in enumerate("qkv"):
            part = _derived(
                tensor, (third, *tensor.shape[1:]), lambda value, at=index * third: value[at : at + third]
            )
            yield f"{lead}.self_attn.{letter}_proj.{rest.rpartition('_')[2]}", part
        return
    module, _, kind = rest.rpartition(".")
    yield f"{lead}.{_IN_LAYERS.get(module, module)}.{kind}", tensor


def _derived(tensor: NewTensor, shape: tuple[int, ...], change: Callable[[Tensor], Tensor]) -> NewTensor:
    return NewTensor(tensor.dtype, shape, lambda: change(tensor.read()))


def _image_processor(size: int, preprocessing: Mapping[str, Any]) -> Any:
    """open_clip's transform as an image processor: shortest side and center crop, or squashed."""
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessor

    filters = {"bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}
    squash = preprocessing.get("resize_mode") == "squash"
    return CLIPImageProcessor(
        size={"height": size, "width": size} if squash else {"shortest_edge": size},
        crop_size={"height": size, "width": size},
        do_center_crop=not squash,
        resample=filters.get(str(preprocessing.get("interpolation")), Resampling.BICUBIC),
        image_mean=list(preprocessing.get("mean") or _MEAN),
        image_std=list(preprocessing.get("std") or _STD),
    )


def _tokenizer_source(folder: Path, given: Path | None, weights: Path) -> Path:
    """Where CLIP's tokenizer is: given, or next to the weights.

    Raises:
        InputError: nowhere.
    """
    if given is not None:
        return given
    if (folder / "tokenizer.json").is_file() or (folder / "merges.txt").is_file():
        return folder
    raise InputError(
        "no tokenizer with these weights",
        where=str(weights),
        hint="name CLIP's with --tokenizer: openai/clip-vit-base-patch32, or open_clip's bpe_simple_vocab_16e6.txt.gz",
    )


def _clip_tokenizer(source: Path, length: int, vocabulary: int) -> Any:
    """CLIP's tokenizer from a folder or from the file of its merges.

    Raises:
        InputError: it cannot be read, or has other tokens than the text tower.
    """
    from transformers import AutoTokenizer, CLIPTokenizer

    with library_reads("the tokenizer cannot be read", str(source)):
        if source.is_file():
            words, merges = _read_merges(source)
            tokenizer: Any = CLIPTokenizer(vocab=words, merges=cast("Any", merges))
        elif (source / "config.json").is_file() or (source / "tokenizer_config.json").is_file():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        else:
            tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=True)
    if len(tokenizer) != vocabulary:
        raise InputError(
            f"a tokenizer of {len(tokenizer)} tokens for {vocabulary} embeddings", where=str(source)
        )
    tokenizer.model_max_length = length
    return tokenizer


def _read_merges(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of the file that CLIP's code comes with.

    The vocabulary is the 256 bytes, the same at the ends of words, the merges in order, and two special tokens.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = content.decode().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for line in lines for first, _, second in [line.partition(" ")] if second]
    symbols = list(_byte_symbols())
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}, merges


def _byte_symbols() -> Iterator[str]:
    """A printable character for each byte, in the order of byte-level BPE: printable bytes first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    yield from map(chr, printable)
    yield from (chr(256 + number) for number in range(256 - len(printable)))


def is_model_config(path: Path) -> bool:
    """Whether a file is a model configuration of open_clip."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    model = value.get("model_cfg", value) if isinstance(value, dict) else {}
    return isinstance(model, dict) and {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys()
