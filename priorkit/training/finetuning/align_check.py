"""What ``align`` checks from headers: language model, image towers, layers, and the length of an image."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.work import Inputs
from priorkit.models.folder import parameter_count
from priorkit.models.language.causal_lm import check_llm
from priorkit.models.language.chat_template import check_chat_template
from priorkit.models.language.tokenizer import IMAGE, load_tokenizer, missing_location_tokens
from priorkit.models.vision.image_tower import patch_side
from priorkit.models.vision.loading import check_encoder, load_config
from priorkit.models.vision.preprocessing import prepared_side
from priorkit.models.vision.towers import tower_config
from priorkit.training.finetuning.align_settings import AlignSettings

logger = logging.getLogger(__name__)

FP32_BYTES = 4

NOT_IN_LLAVA = ("gpt2", "gpt_neo", "opt", "bloom", "gpt_bigcode")
"""Families whose decoder keeps its embeddings where transformers' LLaVA does not find them."""


@dataclass(frozen=True)
class AlignmentSizes:
    """Sizes of a model to be assembled, known from headers.

    Attributes:
        patches: positions of an image; 0 where only the encoder's code knows.
        vision_width: width of the encoders' concatenated features; 0 where unknown.
        projector: parameters of the projector.
        frozen: parameters of the language model and the image towers.
    """

    patches: int
    vision_width: int
    projector: int
    frozen: int

    def disk_bytes(self, checkpoints: int) -> int:
        """Size of the model in fp32 and of checkpoints with the projector and its two moments."""
        return FP32_BYTES * (self.frozen + self.projector + checkpoints * 3 * self.projector)

    @property
    def memory_bytes(self) -> int:
        """Peak memory: while assembled, all weights exist twice; then the projector has a gradient and two moments."""
        return FP32_BYTES * max(2 * self.frozen + self.projector, self.frozen + 4 * self.projector)


def check_alignment(settings: AlignSettings, inputs: Inputs) -> AlignmentSizes:
    """Check language model, encoders and options from headers.

    Raises:
        InputError: a model is broken, or transformers' LLaVA cannot hold it.
        UsageError: options that do not fit the models.
    """
    llm, encoders = inputs.one("llm"), [inputs.one("encoder"), *inputs.many("also_encoder")]
    language = _check_language_model(llm, settings.chat_template)
    for source in encoders:
        check_encoder(source.path, text=False)
    towers: list[Any] = [tower_config(load_config(source.path)) for source in encoders]
    _check_layers(settings, towers)
    for source, tower in zip(encoders, towers, strict=True):
        _warn_of_untrained_layers(settings, source, tower)
    if settings.image_tokens and math.isqrt(settings.image_tokens) ** 2 != settings.image_tokens:
        raise UsageError(
            f"{settings.image_tokens} is not a square number; patches form a square grid",
            where="--image-tokens",
        )
    patches = settings.image_tokens or _patches(towers[0], inputs.one("encoder"))
    longest = settings.max_length or int(language.get("max_position_embeddings") or 2048)
    if patches >= longest:
        raise UsageError(
            f"an image takes {patches} tokens, the longest conversation is {longest}", where="--max-length"
        )
    width = sum(int(getattr(tower, "hidden_size", 0)) for tower in towers)
    hidden = int(language["hidden_size"])
    projector = (width * len(settings.feature_layer) + 1) * hidden
    if settings.projector == "mlp":
        projector += (hidden + 1) * hidden
    frozen = parameter_count(llm.path)
    frozen += sum(parameter_count(source.path, exclude="text") for source in encoders)
    return AlignmentSizes(patches, width, projector, frozen)


def added_tokens(settings: AlignSettings, inputs: Inputs) -> list[tuple[str, str]]:
    """A row for the plan if the tokenizer lacks location tokens, which are then added."""
    boxes = settings.box_writer
    missing = missing_location_tokens(load_tokenizer(inputs.one("llm").path), boxes) if boxes.tokens else []
    return [("location tokens", f"{len(missing)} of {len(boxes.tokens)} added")] if missing else []


def _check_language_model(llm: Input, template: str | None) -> dict[str, Any]:
    """The language model's configuration."""
    config = check_llm(llm.path)
    if config["model_type"] in NOT_IN_LLAVA:
        raise InputError(
            f"transformers' LLaVA cannot hold a language model of type '{config['model_type']}'",
            where=llm.given,
            hint="use a Llama-shaped one",
        )
    check_chat_template(load_tokenizer(llm.path, template), llm.path, IMAGE)
    return config


def _patches(tower: Any, encoder: Input) -> int:
    """Patches of an image at the encoder's resolution; 0 where it is not in the headers."""
    side = patch_side(tower)
    size = prepared_side(encoder.path) or getattr(tower, "image_size", 0)
    return (size // side) ** 2 if side and isinstance(size, int) else 0


def _warn_of_untrained_layers(settings: AlignSettings, source: Input, tower: Any) -> None:
    """Warn if an encoder's patches were trained on regions in another layer than the projector reads."""
    made = source.owner.manifest if source.owner is not None else None
    if made is None or made.step != "pretrain-encoder":
        return
    values, states = made.settings, int(getattr(tower, "num_hidden_layers", 0)) + 1
    if not (values.get("region_weight") or values.get("region_box_weight")):
        return
    trained = int(values["region_layer"])
    if trained % states not in {layer % states for layer in settings.feature_layer}:
        logger.warning(
            f"{source.given}: its patches were trained on regions in hidden state {trained}, and the projector "
            f"reads {', '.join(map(str, settings.feature_layer))}; to read what was trained, use "
            f"--feature-layer {trained}"
        )


def _check_layers(settings: AlignSettings, towers: Sequence[Any]) -> None:
    depths = [depth for tower in towers if (depth := getattr(tower, "num_hidden_layers", None))]
    for layer in settings.feature_layer if depths else ():
        if not -min(depths) - 1 <= layer <= min(depths):
            raise UsageError(
                f"the image tower has {min(depths)} layers; hidden states are numbered {-min(depths) - 1} to "
                f"{min(depths)}",
                where="--feature-layer",
            )
        if len(towers) > 1 and layer >= 0:
            raise UsageError(
                "with several encoders, layers are numbered from the last",
                where="--feature-layer",
                hint=f"{layer} is {layer - depths[0] - 1} in the first",
            )
    if settings.resample == "features":
        if not settings.image_tokens:
            raise UsageError(
                "no effect without --image-tokens", where="--resample features", hint="leave it out"
            )
        if settings.class_token:
            raise UsageError("features on another grid have no place for class tokens", where="--class-token")
        if any(layer >= 0 for layer in settings.feature_layer):
            raise UsageError(
                "with --resample features, layers are numbered from the last", where="--feature-layer"
            )
    if len(towers) > 1 and settings.class_token:
        raise UsageError(
            "several encoders share a grid of patches, which has no place for class tokens",
            where="--class-token",
        )
