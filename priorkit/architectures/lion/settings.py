"""Options of ``tune --architecture lion``, and what a stage has and trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from priorkit.architectures.base import TuneOptions
from priorkit.core.errors import UsageError
from priorkit.core.options.settings import Settings, option
from priorkit.core.options.values import Count, Counts, Words
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.training.finetuning.settings import FinetuningSettings

Stage = Literal["1", "2", "3", "all"]

NONE = "none"
"""``--adapters none`` for a model without adapters."""


class LionSettings(Settings):
    """LION's parts and stages; each stage has the paper's defaults."""

    group: ClassVar[str] = "lion"

    stage: Stage | None = option(
        None,
        "1: Q-Former and image adapter on image-level data; 2: aggregator and region adapter on region-level "
        "data; 3: all of them with the router, from the merged stages; all: everything at once.",
    )
    branches: Words = option(
        (),
        "Where visual tokens come from: qformer, aggregator, projector (LLaVA's). Default: by stage.",
        advanced=True,
    )
    adapters: Words = option(
        (),
        "Adapters parallel to every MLP: region, image, shared (one for all task types), or none. Default: by stage.",
        advanced=True,
    )
    router: bool | None = option(
        None,
        "Train the gates of two adapters; otherwise each task type has its own adapter. Default: by stage.",
        advanced=True,
    )
    adapter_width: int = option(64, "Width of the adapters' bottleneck.", ge=1, advanced=True)
    adapter_input: Literal["residual", "normed"] = option(
        "residual",
        "Input of the adapters: the residual stream before the MLP's norm (the paper), or after it.",
        advanced=True,
    )
    queries: int = option(32, "Query tokens of the Q-Former.", ge=1, advanced=True)
    qformer: str | None = option(
        None,
        "BLIP-2 or InstructBLIP model (safetensors) whose Q-Former and queries are loaded. Default: random "
        "initialization.",
        accepts=("mllm",),
        metavar="MODEL",
        hub="model",
        advanced=True,
    )
    qformer_width: int = option(768, "Width of the Q-Former.", ge=1, advanced=True)
    qformer_layers: int = option(12, "Layers of the Q-Former.", ge=1, advanced=True)
    qformer_heads: int = option(12, "Heads of the Q-Former.", ge=1, advanced=True)
    instruction_length: int = option(
        128,
        "Maximum number of tokens of a question for the Q-Former; longer questions are truncated on the left.",
        ge=1,
        advanced=True,
    )
    aggregator_layers: Counts = option(
        (),
        "Encoder blocks i,j,k of the aggregator from 0: queries from the first, keys from the two shallower "
        "ones. Default: the paper's fractions of the depth.",
        metavar="N",
        advanced=True,
    )
    aggregator_heads: int = option(16, "Heads of the aggregator's attention.", ge=1, advanced=True)
    aggregator_ffn: Count = option(
        0,
        "Width of its feed-forward layers; 0 for the paper's ratio to the encoder's, 3072 to 1408.",
        advanced=True,
    )
    aggregator_dropout: float = option(0.1, "Dropout in the aggregator, 0 to 1.", ge=0, lt=1, advanced=True)
    aggregator_learning_rate: float | None = option(
        None,
        "Peak learning rate of the aggregator. Default: --learning-rate.",
        gt=0,
        advanced=True,
    )
    frozen_dtype: Literal["fp32", "bf16"] = option(
        "fp32",
        "Type of the frozen weights, encoder and language model; bf16 halves their memory and needs --precision bf16.",
        advanced=True,
    )
    router_weight_decay: bool = option(
        False,
        "Let --weight-decay act on the router too, as in the release, where a router is a matrix.",
        advanced=True,
    )
    tags: Literal["off", "hard", "soft"] = option(
        "off",
        "Image tags before the question: none, as text, or with the trained soft prompt.",
        advanced=True,
    )
    tags_column: str = option("tags", "Column of the tags.", metavar="COLUMN", advanced=True)
    task_column: str = option(
        "task_type",
        "Column of the task type, region-level or image-level; where empty, region-level if the text has boxes.",
        metavar="COLUMN",
        advanced=True,
    )
    batches: Literal["mixed", "alternating"] = option(
        "mixed",
        "Batches with both task types in the mixture's order, or batches of one type, alternating (1:1).",
        advanced=True,
    )

    @property
    def chosen_stage(self) -> Stage:
        """The stage.

        Raises:
            UsageError: none was given.
        """
        if self.stage is None:
            raise UsageError("--stage is missing", where="--architecture lion", hint="one of 1, 2, 3, all")
        return self.stage


class LionTuneSettings(LionSettings, AugmentationSettings, FinetuningSettings):
    """What tuning LION reads of the settings of ``tune``."""


@dataclass(frozen=True)
class StageParts:
    """The parts of a stage's model and its data.

    Attributes:
        branches, adapters, router: see ``LionConfig``.
        task_types: of its training data.
    """

    branches: tuple[str, ...]
    adapters: tuple[str, ...]
    router: bool
    task_types: tuple[str, ...]


_BOTH = ("region-level", "image-level")
STAGES: dict[str, StageParts] = {
    "1": StageParts(("qformer",), ("image",), False, ("image-level",)),
    "2": StageParts(("aggregator",), ("region",), False, ("region-level",)),
    "3": StageParts(("qformer", "aggregator"), ("region", "image"), True, _BOTH),
    "all": StageParts(("qformer", "aggregator"), ("region", "image"), True, _BOTH),
}
"""The stages of the paper; ``all`` is its single-stage baseline."""


def stage_parts(settings: LionSettings) -> StageParts:
    """The stage's parts, with those that the options change.

    Raises:
        UsageError: no stage.
    """
    default = STAGES[settings.chosen_stage]
    adapters = default.adapters
    if settings.adapters:
        adapters = () if settings.adapters == (NONE,) else settings.adapters
    # Their order is that of the task types and of the sequence.
    adapters = tuple(sorted(adapters, key=lambda name: (name != "region", name)))
    branches = settings.branches or default.branches
    router = settings.router
    if router is None:
        router = default.router and set(adapters) == set(default.adapters)
    return StageParts(branches, adapters, router, default.task_types)


def lion_values(settings: LionSettings, vision_width: int, layers: tuple[int, ...]) -> dict[str, Any]:
    """The settings as fields of ``LionConfig``.

    Args:
        settings: the options.
        vision_width: the encoder's width.
        layers: the aggregator's blocks, checked.
    """
    shape = stage_parts(settings)
    order = ("qformer", "aggregator", "projector")
    return {
        "branches": [name for name in order if name in shape.branches],
        "adapters": list(shape.adapters),
        "router": shape.router,
        "adapter_width": settings.adapter_width,
        "adapter_input": settings.adapter_input,
        "queries": settings.queries,
        "qformer": {
            "hidden_size": settings.qformer_width,
            "num_hidden_layers": settings.qformer_layers,
            "num_attention_heads": settings.qformer_heads,
            "intermediate_size": 4 * settings.qformer_width,
        },
        "instruction_length": settings.instruction_length,
        "aggregator_layers": list(layers),
        "aggregator_heads": settings.aggregator_heads,
        "aggregator_ffn": settings.aggregator_ffn or round(vision_width * 3072 / 1408),
        "aggregator_mlp": 4 * vision_width,
        "dropout": settings.aggregator_dropout,
        "tags": settings.tags,
    }


_STRUCTURE: Mapping[str, str] = {
    "branches": "branches",
    "adapters": "adapters",
    "router": "router",
    "adapter_width": "adapter_width",
    "adapter_input": "adapter_input",
    "queries": "queries",
    "qformer_width": "qformer.hidden_size",
    "qformer_layers": "qformer.num_hidden_layers",
    "qformer_heads": "qformer.num_attention_heads",
    "instruction_length": "instruction_length",
    "aggregator_layers": "aggregator_layers",
    "aggregator_heads": "aggregator_heads",
    "aggregator_ffn": "aggregator_ffn",
    "aggregator_dropout": "dropout",
}
"""Options that are fixed by the adapter that training continues from, and the field that holds each."""


def _field(values: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def conflicting_options(
    settings: LionSettings, wanted: Mapping[str, Any], held: Mapping[str, Any]
) -> list[str]:
    """Options that were given and differ from the adapter that training continues from."""
    return [
        f"--{name.replace('_', '-')}"
        for name, field in _STRUCTURE.items()
        if name in settings.model_fields_set and _field(wanted, field) != _field(held, field)
    ]


_PARTS = "LION trains the parts of its --stage, with one learning rate (and --aggregator-learning-rate)"
_ADAPTERS = "LION trains its own adapters"

OPTIONS = TuneOptions(
    groups=(LionSettings, AugmentationSettings),
    unsupported={
        "train": _PARTS,
        "projector_learning_rate": _PARTS,
        "llm_learning_rate": _PARTS,
        "encoder_learning_rate": _PARTS,
        "lora_rank": _ADAPTERS,
        "lora_alpha": _ADAPTERS,
        "lora_dropout": _ADAPTERS,
        "dora": _ADAPTERS,
        "export_encoder": "LION leaves the encoder as it is",
        "unit": "LION counts samples: its mixture is drawn before conversations are tokenized",
    },
)
"""What ``--architecture lion`` takes."""
