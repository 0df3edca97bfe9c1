"""The configuration of a LION model: a LLaVA configuration and what LION adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import LlavaConfig

from priorkit.core.errors import InputError, UsageError, nearest

TASK_TYPES = ("region-level", "image-level")
"""Task types in the order of the router's rows: 0 is region-level, as in the released code."""

ADAPTERS = ("region", "image")
"""Adapters in the order of the task types; hard routing sends type *t* through adapter *t* only."""

SHARED = "shared"
"""The one adapter of all task types, for comparison with two."""

BRANCHES = ("qformer", "aggregator", "projector")
"""Where visual tokens come from, in the order of the sequence."""


class LionConfig(LlavaConfig):
    """Configuration of :class:`priorkit.architectures.lion.modeling.model.LionForConditionalGeneration`.

    ``image_seq_length`` is the number of tokens of all branches together, ``vision_feature_layer`` and
    ``vision_feature_select_strategy`` are those of the LLaVA model below and hold for the branch
    ``projector`` only.

    Attributes:
        branches: of :data:`BRANCHES`, in their order.
        adapters: ``region`` and ``image``, one of them, ``shared``, or none.
        router: whether the gates of two adapters are trained; otherwise hard routing.
        adapter_width: width of the adapters' bottleneck.
        adapter_input: ``residual``, the un-normalised stream before the MLP's norm (the paper), or
            ``normed``, what the MLP reads.
        queries: query tokens of the Q-Former.
        qformer: arguments of ``InstructBlipQFormerConfig``.
        instruction_length: most tokens of a question that the Q-Former reads; longer ones lose their
            beginning.
        aggregator_layers: 0-based encoder blocks ``i, j, k``: the last gives the queries, the two
            shallower ones keys and values.
        aggregator_heads: heads of its attention.
        aggregator_ffn: hidden width of its feed-forward layers.
        aggregator_mlp: hidden width of the MLP behind it.
        dropout: of the aggregator's branches and attention.
        tags: ``off``, ``hard`` (tags as text) or ``soft`` (with the trained vector).
        soft_token_id: id of the soft prompt's reserved token.
    """

    model_type = "lion"

    vision_config: Any = None
    text_config: Any = None
    branches: Any = None
    adapters: Any = None
    router: bool = True
    adapter_width: int = 64
    adapter_input: str = "residual"
    queries: int = 32
    qformer: Any = None
    instruction_length: int = 128
    aggregator_layers: Any = None
    aggregator_heads: int = 16
    aggregator_ffn: int = 3072
    aggregator_mlp: int = 5632
    dropout: float = 0.1
    tags: str = "off"
    soft_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.branches is None:
            self.branches = ["qformer", "aggregator"]
        if self.adapters is None:
            self.adapters = list(ADAPTERS)
        if self.qformer is None:
            self.qformer = {}
        if self.aggregator_layers is None:
            self.aggregator_layers = list(default_layers(self.vision_config.num_hidden_layers))


LION_FIELDS = (
    "branches",
    "adapters",
    "router",
    "adapter_width",
    "adapter_input",
    "queries",
    "qformer",
    "instruction_length",
    "aggregator_layers",
    "aggregator_heads",
    "aggregator_ffn",
    "aggregator_mlp",
    "dropout",
    "tags",
    "soft_token_id",
    "image_seq_length",
)
"""What LION adds to the base model's configuration, and the one value of it that LION changes."""


def default_layers(depth: int) -> tuple[int, int, int]:
    """The paper's fractions of an encoder's depth, as 0-based blocks.

    ``depth - 1``, ``round(28 (depth - 1) / 38)``, ``round(18 (depth - 1) / 38)``: 38, 28 and 18 of the 39
    blocks of EVA-ViT-g (released code), 23, 17 and 11 of 24.
    """
    return depth - 1, round(28 * (depth - 1) / 38), round(18 * (depth - 1) / 38)


def check_layers(layers: tuple[int, ...], depth: int) -> tuple[int, int, int]:
    """The aggregator's blocks, checked against the encoder's depth.

    Raises:
        UsageError: not three blocks, or one that the encoder does not have.
    """
    if not layers:
        return default_layers(depth)
    if len(layers) != 3:
        raise UsageError(
            f"the aggregator reads three blocks, got {len(layers)}",
            where="--aggregator-layers",
            hint="give i,j,k: the last block first, then the two shallower ones",
        )
    beyond = [layer for layer in layers if not 0 <= layer < depth]
    if beyond:
        raise UsageError(
            f"the encoder has the blocks 0 to {depth - 1}, not {beyond[0]}",
            where="--aggregator-layers",
            hint=f"the paper's fractions of its depth are {','.join(map(str, default_layers(depth)))}",
        )
    return layers[0], layers[1], layers[2]


def check_adapters(adapters: tuple[str, ...], router: bool) -> None:
    """Check that a set of adapters is one of those a model can have.

    Raises:
        UsageError: an unknown name, ``shared`` together with others, or a router without two adapters.
    """
    known = (*ADAPTERS, SHARED)
    for name in adapters:
        if name not in known:
            raise UsageError(f"no adapter '{name}'", where="--adapters", hint=nearest(name, known))
    if SHARED in adapters and len(adapters) > 1:
        raise UsageError("'shared' is the only adapter where it is one", where="--adapters")
    if router and set(adapters) != set(ADAPTERS):
        raise UsageError(
            f"a router needs the adapters region and image, got {', '.join(adapters) or 'none'}",
            where="--router",
            hint="use --no-router, or --adapters region,image",
        )


def task_index(task_type: str) -> int:
    """The number of a task type.

    Raises:
        InputError: there is none of that name.
    """
    if task_type not in TASK_TYPES:
        raise InputError(f"unknown task type '{task_type}'", hint=nearest(task_type, TASK_TYPES))
    return TASK_TYPES.index(task_type)


def lion_fields(config: Any) -> dict[str, Any]:
    """LION's own part of a configuration, as an adapter artifact records it."""
    fields = config if isinstance(config, Mapping) else config.to_dict()
    return {name: fields[name] for name in LION_FIELDS}
