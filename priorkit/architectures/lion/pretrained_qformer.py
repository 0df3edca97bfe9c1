"""A pretrained Q-Former: the tensors of a BLIP-2 or InstructBLIP model that LION's branch starts from.

Only these tensors are read, so of a sharded model the other shards need not be there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from priorkit.core.errors import InputError, Problems
from priorkit.core.safetensors_header import TensorInfo, read_header
from priorkit.models.folder import read_config, read_json, tensor_files
from priorkit.models.pretrained import load_preprocessor

logger = logging.getLogger(__name__)

FAMILIES = ("instructblip", "instructblipvideo", "blip-2")
"""Model types of ``config.json`` whose Q-Former is known."""

WORDS = "qformer.embeddings.word_embeddings.weight"
"""LION's Q-Former reads the language model's tokens, a pretrained one BERT's. Where the checkpoint has its tokenizer,
each of the language model's tokens starts as the mean of the embeddings of its text in BERT's; else at random."""

TOKENIZER = "qformer_tokenizer"
"""The folder of InstructBLIP's tokenizer for the Q-Former."""

PATCHES = ("embeddings.patch_embedding.weight", "patch_embed.proj.weight")
"""The tensor by which image towers are told apart: it does not depend on the resolution."""

SAME_ENCODER = 0.02
"""Relative difference up to which two patch embeddings are one, rounded to half precision."""

POSITIONS = "qformer.embeddings.position_embeddings.weight"

_ELSEWHERE: Mapping[str, str] = {
    "qformer.embeddings.layernorm.": "qformer.layernorm.",  # BLIP-2 without text
    "qformer.embeddings.": "embeddings.",  # BLIP-2 for retrieval
}
"""Where BLIP-2 keeps what InstructBLIP has in the Q-Former's embeddings."""


@dataclass(frozen=True)
class PretrainedQueries:
    """A pretrained Q-Former that is known to fit.

    Attributes:
        tensors: which tensor of the checkpoint each tensor of :class:`QueryBranch` comes from.
        fresh: tensors of the branch's Q-Former that the checkpoint does not have.
        fields: arguments of ``InstructBlipQFormerConfig`` that it decides.
        words: the checkpoint's word embeddings, where it has them with their tokenizer.
        tokenizer: the folder of that tokenizer.
    """

    tensors: Mapping[str, tuple[str, TensorInfo]]
    fresh: tuple[str, ...]
    fields: Mapping[str, Any]
    words: tuple[str, TensorInfo] | None = None
    tokenizer: Path | None = None


def check_queries(
    folder: Path, fields: Mapping[str, Any], encoder_width: int, base: Path | None = None
) -> PretrainedQueries:
    """Check from headers that a checkpoint's Q-Former is of the shape that is asked for.

    Args:
        folder: a BLIP-2 or InstructBLIP model in transformers' layout, safetensors.
        fields: of ``LionConfig``: ``queries``, ``qformer`` and ``instruction_length``.
        encoder_width: width of the encoder that the Q-Former will read.
        base: the model whose encoder that is; None does not compare the encoders.

    Raises:
        InputError: another model, tensors that are missing, every size that differs, or another encoder.
    """
    from transformers import CONFIG_MAPPING, InstructBlipQFormerConfig, InstructBlipQFormerModel

    config = read_config(folder)
    if config["model_type"] not in FAMILIES:
        raise InputError(
            f"a Q-Former comes from a model of {', '.join(FAMILIES)}, this is '{config['model_type']}'",
            where=str(folder),
        )
    given: Any = CONFIG_MAPPING[config["model_type"]](**config).qformer_config
    wanted = fields["qformer"]
    held = _tensors(folder)
    _compare_sizes(folder, given, held, fields, encoder_width)
    decided = {
        name: getattr(given, name)
        for name in ("intermediate_size", "cross_attention_frequency", "layer_norm_eps", "hidden_act")
    }
    inner = InstructBlipQFormerConfig(
        **{
            **wanted,
            **decided,
            "vocab_size": 1,
            "pad_token_id": None,
            "max_position_embeddings": fields["instruction_length"],
            "encoder_hidden_size": encoder_width,
        }
    )
    with torch.device("meta"):
        model = InstructBlipQFormerModel(inner)
    shapes = {f"qformer.{name}": tuple(value.shape) for name, value in model.state_dict().items()}
    shapes["query_tokens"] = (1, fields["queries"], inner.hidden_size)
    problems = Problems(InputError)
    sources: dict[str, tuple[str, TensorInfo]] = {}
    fresh: list[str] = []
    for name, shape in shapes.items():
        source = _source(name, held)
        if name == WORDS or (source is None and _of_text(name)):
            fresh.append(name)
        elif source is None:
            problems.add(f"the tensor {name} is missing", where=str(folder))
        elif held[source].shape != shape and not (
            name == POSITIONS and held[source].shape[1:] == shape[1:] and held[source].shape[0] >= shape[0]
        ):
            problems.add(f"{name}: expected {list(shape)}, got {list(held[source].shape)}", where=str(folder))
        else:
            sources[name] = source, held[source]
    problems.raise_if_any()
    if base is not None:
        _refuse_other_encoder(folder, base)
    words = _source(WORDS, held)
    tokenizer = folder / TOKENIZER
    if words is None or not tokenizer.is_dir():
        return PretrainedQueries(sources, tuple(fresh), decided)
    return PretrainedQueries(sources, tuple(fresh), decided, (words, held[words]), tokenizer)


def _refuse_other_encoder(folder: Path, base: Path) -> None:
    """Refuse a Q-Former that was trained on the features of another encoder than the base model's.

    The encoders are compared by their patch embeddings; where a checkpoint does not hold its encoder, a warning
    says that it could not be compared.

    Raises:
        InputError: they differ.
    """
    trained_on, read = (_patch_embedding(model) for model in (folder, base))
    if trained_on is None or read is None:
        logger.warning(
            f"{folder}: it cannot be checked whether the Q-Former was trained on the base model's encoder, as "
            f"{folder if trained_on is None else base} holds no patch embedding"
        )
        return
    same = trained_on.shape == read.shape
    difference = (
        float((trained_on - read).norm() / trained_on.norm().clamp_min(1e-12)) if same else float("inf")
    )
    if difference > SAME_ENCODER:
        raise InputError(
            "the pretrained Q-Former reads the features of another encoder: the patch embeddings "
            + (
                f"differ by {difference:.0%}"
                if same
                else f"have the shapes {list(trained_on.shape)} and {list(read.shape)}"
            ),
            where=str(folder),
            hint="use a LLaVA model on the checkpoint's own encoder (priorkit convert MODEL --part vision), or leave "
            "--qformer out",
        )


def _patch_embedding(folder: Path) -> torch.Tensor | None:
    """The weight of the first convolution of a model's image tower in fp32; None where it is not there."""
    index = folder / "model.safetensors.index.json"
    places: dict[str, str] = read_json(index).get("weight_map", {}) if index.is_file() else {}
    files = {
        folder / shard
        for name, shard in places.items()
        if name.endswith(PATCHES) and Path(shard).name == shard
    }
    for file in sorted(files) if index.is_file() else [folder / "model.safetensors"]:
        for name in read_header(file) if file.is_file() else ():
            if name.endswith(PATCHES):
                with safe_open(file, framework="pt") as reader:
                    return reader.get_tensor(name).float()
    return None


def _tensors(folder: Path) -> dict[str, TensorInfo]:
    """The tensors of the Q-Former and its queries by the names they have in the model that holds them."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        every = tensor_files(folder)
    else:
        places: dict[str, str] = read_json(index).get("weight_map", {})
        shards = sorted({shard for name, shard in places.items() if _concerns(name)})
        every = {
            name: info
            for shard in shards
            if Path(shard).name == shard
            for name, info in read_header(folder / shard).items()
        }
    return {name: info for name, info in every.items() if _concerns(name)}


def _concerns(name: str) -> bool:
    first = name.removeprefix("model.").split(".")[0]
    return first in ("qformer", "query_tokens", "embeddings")


def _source(name: str, held: Mapping[str, TensorInfo]) -> str | None:
    names = [
        name,
        *(there + name[len(here) :] for here, there in _ELSEWHERE.items() if name.startswith(here)),
    ]
    candidates = (prefix + alternative for alternative in names for prefix in ("", "model."))
    return next((candidate for candidate in candidates if candidate in held), None)


def _of_text(name: str) -> bool:
    """Whether only text passes a tensor: a BLIP-2 that reads no text has none of these."""
    parts = name.split(".")
    return name == POSITIONS or (parts[-3] in ("intermediate", "output") and "attention" not in name)


def _compare_sizes(
    folder: Path, given: Any, held: Mapping[str, TensorInfo], fields: Mapping[str, Any], encoder_width: int
) -> None:
    """Report the sizes that differ by the options that set them, before single tensors are compared."""
    problems = Problems(InputError)
    queries = _source("query_tokens", held)
    if queries is None:
        raise InputError("the tensor query_tokens is missing", where=str(folder))
    wanted = fields["qformer"]
    for option, expected, got in (
        ("--queries", fields["queries"], held[queries].shape[1]),
        ("--qformer-width", wanted["hidden_size"], given.hidden_size),
        ("--qformer-layers", wanted["num_hidden_layers"], given.num_hidden_layers),
        ("--qformer-heads", wanted["num_attention_heads"], given.num_attention_heads),
    ):
        if expected != got:
            problems.add(
                f"the pretrained Q-Former has {got}, expected {expected}",
                where=option,
                hint=f"give {option} {got}",
            )
    if given.encoder_hidden_size != encoder_width:
        problems.add(
            f"the pretrained Q-Former reads an encoder of width {given.encoder_hidden_size}, expected "
            f"{encoder_width}",
            where=str(folder),
            hint="use a LLaVA model on an encoder of that width, or leave --qformer out",
        )
    positions = _source(POSITIONS, held)
    if positions is not None and held[positions].shape[0] < fields["instruction_length"]:
        problems.add(
            f"the pretrained Q-Former reads {held[positions].shape[0]} tokens of a question, expected "
            f"{fields['instruction_length']}",
            where="--instruction-length",
        )
    problems.raise_if_any()


@torch.no_grad()
def load_queries(branch: nn.Module, pretrained: PretrainedQueries, tokenizer: Any = None) -> None:
    """Put a pretrained Q-Former and its queries into a branch; of positions the first ones.

    Args:
        branch: a ``QueryBranch`` of the shape that was checked.
        pretrained: from :func:`check_queries`.
        tokenizer: the language model's, for the word embeddings; None leaves them as they are.

    Raises:
        InputError: the Q-Former's tokenizer cannot be loaded.
    """
    state = branch.state_dict()
    for file in sorted({info.file for _, info in pretrained.tensors.values()}):
        with safe_open(file, framework="pt") as reader:
            for name, (source, info) in pretrained.tensors.items():
                if info.file == file:
                    state[name].copy_(reader.get_tensor(source)[: len(state[name])])
    if pretrained.words is not None and tokenizer is not None:
        name, info = pretrained.words
        with safe_open(info.file, framework="pt") as reader:
            table = reader.get_tensor(name).float()
        transfer_words(state[WORDS], table, tokenizer, pretrained.tokenizer)


def transfer_words(target: torch.Tensor, table: torch.Tensor, tokenizer: Any, source: Path | None) -> None:
    """Set a table of word embeddings from one of another vocabulary.

    Each token becomes the mean of the embeddings of its text's tokens; tokens without text there, such as special
    ones, stay as they are.

    Args:
        target: ``[tokens, width]`` of the language model's vocabulary; changed in place.
        table: ``[words, width]`` of the Q-Former's vocabulary.
        tokenizer: the language model's.
        source: the folder of the Q-Former's tokenizer.

    Raises:
        InputError: that cannot be loaded.
    """
    from transformers import AutoTokenizer

    assert source is not None
    other: Any = load_preprocessor(AutoTokenizer, source)
    special = set(tokenizer.all_special_ids)
    for number in range(min(len(target), len(tokenizer))):
        text = "" if number in special else tokenizer.decode([number])
        ids = [index for index in other(text, add_special_tokens=False)["input_ids"] if index < len(table)]
        if ids and other.unk_token_id not in ids:
            target[number] = table[ids].mean(0)
