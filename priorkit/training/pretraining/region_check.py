"""Checks of the region term before pretraining an encoder: options, the encoder's shape, the pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from priorkit.core.errors import Problems
from priorkit.core.options.specs import refuse_changed
from priorkit.models.vision.patch_settings import check_region_layer
from priorkit.training.pretraining.settings import PretrainEncoderSettings

DEFAULT_LAYERS, DEFAULT_PATCH = 12, 32
"""Of CLIP's and SigLIP's vision configurations in transformers, where a config.json leaves them out."""


def check_region_options(
    settings: PretrainEncoderSettings, shape: Mapping[str, Any], problems: Problems
) -> None:
    """Check the region term's options against each other and against the encoder.

    Args:
        settings: of the run.
        shape: of the encoder, see :func:`priorkit.models.vision.building.preset_shape`; empty if it is not known.
        problems: where problems go.
    """
    if not settings.trains_regions:
        what = "has no effect without --region-weight or --region-box-weight"
        refuse_changed(settings, ("region_layer",), problems, what)
        return
    if not shape:
        return
    vision = shape["vision"]
    check_region_layer(settings, int(vision.get("num_hidden_layers", DEFAULT_LAYERS)), problems)
    side = int(vision.get("patch_size", DEFAULT_PATCH))
    if vision["image_size"] < 2 * side:
        problems.add(
            f"an image of {vision['image_size']} pixels has one patch of {side} pixels at most, which shows no place",
            where="--region-weight" if settings.region_weight else "--region-box-weight",
            hint="use an encoder with smaller patches",
        )
