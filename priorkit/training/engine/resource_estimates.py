"""What training takes: memory and disk estimated from headers, FLOPs by formula, throughput as measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from priorkit.core.process.runtime import Runtime, world_size
from priorkit.core.safetensors_header import TensorInfo
from priorkit.models.multimodal.llava import PARTS, llava_part

if TYPE_CHECKING:
    from priorkit.training.engine.training_run import TrainingSummary

FP32 = 4
"""Bytes of a value; weights, gradients and moments are fp32 whatever the compute dtype."""


@dataclass(frozen=True)
class Footprint:
    """Memory and disk that a run takes, in numbers of values.

    Attributes:
        loaded: weights in memory.
        trained: weights with a gradient and two moments.
        saved: weights of the artifact.
    """

    loaded: int
    trained: int
    saved: int

    @property
    def memory_bytes(self) -> int:
        """Weights, gradients and AdamW's moments, without activations and cached features."""
        return FP32 * (self.loaded + 3 * self.trained)

    @property
    def disk_bytes(self) -> int:
        """The artifact, and a checkpoint of trained weights and moments."""
        return FP32 * (self.saved + 3 * self.trained)


def footprint(
    tensors: Mapping[str, TensorInfo], train: Collection[str], rank: int = 0, magnitudes: bool = False
) -> Footprint:
    """The footprint of training parts of a model.

    Args:
        tensors: all of a model's.
        train: parts of a LLaVA model; ``llm`` is all of a language model.
        rank: of LoRA's matrices, which are trained instead of the language model; 0 for none.
        magnitudes: whether DoRA's vectors are trained with them.
    """
    sizes: dict[str, int] = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        sizes[llava_part(name)] += tensor.count
    loaded = sum(sizes.values())
    if not rank:
        return Footprint(loaded, sum(sizes[part] for part in train), loaded)
    # PEFT keeps a copy of a fully trained part in addition to the original.
    copied = sum(sizes[part] for part in train if part != "llm")
    matrices = [
        tensor.shape
        for name, tensor in tensors.items()
        if llava_part(name) == "llm" and len(tensor.shape) == 2 and not _is_embedding_or_head(name)
    ]
    added = copied + sum(rank * (rows + columns) + magnitudes * rows for rows, columns in matrices)
    return Footprint(loaded + added, added, added)


def _is_embedding_or_head(name: str) -> bool:
    """Whether a tensor is an embedding or the output head, which get no LoRA."""
    return any(part.startswith(("embed", "lm_head", "wte", "wpe")) for part in name.split("."))


class ParameterCounts(Protocol):
    """Numbers of parameters: trainable ones, and all."""

    @property
    def trained(self) -> int: ...
    @property
    def total(self) -> int: ...


PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12}
"""Peak dense bf16 FLOP/s by name of the GPU, from the vendor's data sheet."""


def flops_per_token(config: Any, parameters: int, length: int) -> float:
    """FLOPs of forward and backward pass per token: ``6 N + 12 L H T``.

    ``N`` counts all parameters except an embedding that is not also the output head; attention is not
    halved for causality. torchtitan and llm-foundry use the same formula, so figures are comparable.

    Args:
        config: of the model.
        parameters: their total number.
        length: tokens in a row.
    """
    text = config.get_text_config()
    width, layers = text.hidden_size, text.num_hidden_layers
    tables = 0 if text.tie_word_embeddings else text.vocab_size * width
    return 6.0 * (parameters - tables) + 12.0 * layers * width * length


TUNING_FORMULA = "(2 + 2 [gradient passes] + 2 [trained]) N + 12 L H T"
"""What :func:`tuning_flops` counts, as the manifest names it."""


@dataclass
class TuningCounts:
    """What this process has computed in instruction tuning.

    Attributes:
        tokens: positions of samples, without padding.
        squared_lengths: sum of the squared lengths of samples.
        supervised_tokens: positions with loss; the output head is computed only there.
        projected_patches: image positions computed by the projector.
        encoded_patches: image positions computed by the encoder; none where features are cached.
        encoded_squared_lengths: sum over encoded images of their squared numbers of positions.
    """

    tokens: int = 0
    squared_lengths: int = 0
    supervised_tokens: int = 0
    projected_patches: int = 0
    encoded_patches: int = 0
    encoded_squared_lengths: int = 0


def tuning_flops(config: Any, parts: Mapping[str, ParameterCounts], counted: TuningCounts) -> float:
    """FLOPs of forward and backward passes of instruction tuning, without padding.

    Each of ``N`` parameters of a part takes 2 per position forward, 2 for a gradient that passes through it to
    trainable parameters, and 2 for its own gradient where it is trainable: ``6 N`` as in
    :func:`flops_per_token` where everything is trained. Embeddings take none, the output head only at
    positions with loss. Attention takes ``12 L H T`` for each position of a sample of ``T``, not halved for
    causality, and a third of that in a frozen encoder.

    Args:
        config: of the model.
        parts: numbers of parameters by ``projector``, ``llm`` and ``encoder``.
        counted: what was computed.
    """
    text = config.get_text_config()
    width, table = text.hidden_size, text.vocab_size * text.hidden_size
    llm = parts["llm"]
    frozen = llm.total - llm.trained
    tables = table if text.tie_word_embeddings else 2 * table
    head_trains = frozen < llm.trained
    body = 4.0 * frozen + 6.0 * llm.trained - tables * (6.0 if head_trains else 4.0)
    flops = body * counted.tokens + 12.0 * text.num_hidden_layers * width * counted.squared_lengths
    flops += (6.0 if head_trains else 4.0) * table * counted.supervised_tokens
    if "projector" not in parts or not counted.projected_patches:
        return flops
    projector, encoder = parts["projector"], parts["encoder"]
    passed = 2.0 + 2.0 * (encoder.trained > 0)
    flops += (
        6.0 * projector.trained + passed * (not projector.trained) * projector.total
    ) * counted.projected_patches
    vision = config.vision_config
    share = 3.0 if encoder.trained else 1.0
    weights = encoder.trained or encoder.total
    flops += share * 2.0 * weights * counted.encoded_patches
    return (
        flops + share * 4.0 * vision.num_hidden_layers * vision.hidden_size * counted.encoded_squared_lengths
    )


def tuning_throughput(
    config: Any,
    parts: Mapping[str, ParameterCounts],
    counted: TuningCounts,
    summary: TrainingSummary,
    runtime: Runtime,
) -> dict[str, float]:
    """As :func:`pretraining_throughput`, for instruction tuning; empty where this process computed nothing."""
    if not counted.supervised_tokens:
        return {}
    rate = summary.cost["tokens_per_second"] / world_size()
    return _with_mfu(rate * tuning_flops(config, parts, counted) / counted.supervised_tokens, runtime)


def pretraining_throughput(
    config: Any, parameters: int, length: int, summary: TrainingSummary, runtime: Runtime
) -> dict[str, float]:
    """``model_flops_per_second`` of each process, and ``mfu``, their share of the GPU's peak where it is known."""
    rate = summary.cost["tokens_per_second"] / world_size()
    return _with_mfu(rate * flops_per_token(config, parameters, length), runtime)


def _with_mfu(flops: float, runtime: Runtime) -> dict[str, float]:
    figures = {"model_flops_per_second": flops}
    if runtime.device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(runtime.device)
        peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
        if peak is not None and runtime.precision == "bf16":
            figures["mfu"] = flops / peak
    return figures
