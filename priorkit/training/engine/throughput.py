"""How much of the machine pretraining and tuning used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from priorkit.core.runtime import Runtime, world_size
from priorkit.training.engine.loop import Summary


class Part(Protocol):
    """Numbers of parameters: those that train, and all."""

    @property
    def trained(self) -> int: ...
    @property
    def total(self) -> int: ...


PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12, "L40S": 362e12}
"""Dense bf16 operations per second by name of the GPU, from its maker's data sheet."""


def flops_per_token(config: Any, parameters: int, length: int) -> float:
    """Operations of forward and backward pass per token: ``6 N + 12 L H T``.

    ``N`` counts all parameters but those of an embedding that is no output head too; attention is not
    halved for causality. torchtitan and llm-foundry count alike, so figures compare.

    Args:
        config: the model's.
        parameters: all of them.
        length: tokens in a row.
    """
    text = config.get_text_config()
    width, layers = text.hidden_size, text.num_hidden_layers
    tables = 0 if text.tie_word_embeddings else text.vocab_size * width
    return 6.0 * (parameters - tables) + 12.0 * layers * width * length


TUNING_FORMULA = "(2 + 2 [gradient passes] + 2 [trained]) N + 12 L H T"
"""What :func:`tuning_flops` counts, as the manifest names it."""


@dataclass
class Counted:
    """What instruction tuning has computed, in this process.

    Attributes:
        positions: of samples; padding is not counted.
        squares: the sum over samples of their lengths' squares.
        targets: positions with loss, where alone the output head is computed.
        shown: images' positions that passed the projector.
        looked: images' positions that passed the encoder, which is not asked again where features are kept.
        look_squares: the sum over looks of their positions' squares.
    """

    positions: int = 0
    squares: int = 0
    targets: int = 0
    shown: int = 0
    looked: int = 0
    look_squares: int = 0


def tuning_flops(config: Any, parts: Mapping[str, Part], counted: Counted) -> float:
    """Operations of forward and backward passes of instruction tuning; padding is none of them.

    Each of ``N`` parameters of a part takes 2 per position forward, 2 for the gradient that passes it on its
    way to what trains, and 2 for its own where it trains: ``6 N`` as in :func:`flops_per_token` where all
    trains. The embeddings take none and the output head its part at positions with loss alone. Attention
    takes ``12 L H T`` for each position of a sample of ``T``, not halved for causality, a third of it in an
    encoder that is frozen.

    Args:
        config: the model's.
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
    flops = body * counted.positions + 12.0 * text.num_hidden_layers * width * counted.squares
    flops += (6.0 if head_trains else 4.0) * table * counted.targets
    if "projector" not in parts or not counted.shown:
        return flops
    projector, encoder = parts["projector"], parts["encoder"]
    passed = 2.0 + 2.0 * (encoder.trained > 0)
    flops += (6.0 * projector.trained + passed * (not projector.trained) * projector.total) * counted.shown
    vision = config.vision_config
    share = 3.0 if encoder.trained else 1.0
    weights = encoder.trained or encoder.total
    flops += share * 2.0 * weights * counted.looked
    return flops + share * 4.0 * vision.num_hidden_layers * vision.hidden_size * counted.look_squares


def tuning_speed(
    config: Any, parts: Mapping[str, Part], counted: Counted, summary: Summary, runtime: Runtime
) -> dict[str, float]:
    """As :func:`speed`, for instruction tuning; empty where this process computed nothing."""
    if not counted.targets:
        return {}
    rate = summary.cost["tokens_per_second"] / world_size()
    return _shares(rate * tuning_flops(config, parts, counted) / counted.targets, runtime)


def speed(config: Any, parameters: int, length: int, summary: Summary, runtime: Runtime) -> dict[str, float]:
    """``model_flops_per_second`` of each process, and ``mfu``, their share of the GPU's peak where it is known."""
    rate = summary.cost["tokens_per_second"] / world_size()
    return _shares(rate * flops_per_token(config, parameters, length), runtime)


def _shares(flops: float, runtime: Runtime) -> dict[str, float]:
    found = {"model_flops_per_second": flops}
    if runtime.device.type == "cuda":
        name = torch.cuda.get_device_name(runtime.device)
        peak = next((value for part, value in PEAK_FLOPS.items() if part in name), None)
        if peak is not None and runtime.precision == "bf16":
            found["mfu"] = flops / peak
    return found
