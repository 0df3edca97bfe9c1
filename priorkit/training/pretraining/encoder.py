"""The encoder of a pretraining run: its pairs, the new model, the objective."""

from __future__ import annotations

from itertools import chain
from typing import Any

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.decoding import decode
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.data.pairs.stored_pairs import Pairs
from priorkit.inference.images.input_pairs import read_input_pairs
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder
from priorkit.training.objectives.contrastive import ContrastiveObjective
from priorkit.training.objectives.regions import RegionTerm, RegionWeights, region_texts
from priorkit.training.pretraining.settings import PretrainEncoderSettings

STATISTICS_IMAGES = 512
"""Roughly how many images the channels' mean and standard deviation are computed from."""


def read_image_text_pairs(
    settings: PretrainEncoderSettings, work: Work[Any], runtime: Runtime
) -> tuple[Pairs, Rejects]:
    """The pairs, and the rows that cannot be used; these are written to the artifact.

    Raises:
        InputError: too many rows cannot be used, or none of the others has a region to train on.
    """
    rejects = Rejects(settings.reject_limit)
    pairs = read_input_pairs(
        work, "pairs", runtime, rejects, settings.layout, with_regions=settings.trains_regions
    )
    if settings.trains_regions and not any(pairs.regions):
        raise InputError("no usable pair has a region", where=settings.pairs)
    rejects.write(work.path)
    return pairs, rejects


def new_encoder(
    settings: PretrainEncoderSettings, shape: dict[str, Any], pairs: Pairs, runtime: Runtime
) -> Encoder:
    """A new encoder on the device, with a tokenizer trained on the texts of pairs and regions."""
    sample = [decode(ref) for ref in pairs.images[:: max(1, len(pairs) // STATISTICS_IMAGES)]]
    texts = chain(pairs.texts, region_texts(pairs.regions))
    encoder = build_encoder(shape, texts, sample, settings.vocab_size, settings.seed, settings.loss)
    encoder.model.to(runtime.device)
    choose_attention(encoder.model, runtime.device.type, runtime.precision)
    return encoder


def build_objective(
    settings: PretrainEncoderSettings, encoder: Encoder, pairs: Pairs
) -> ContrastiveObjective:
    """CLIP's or SigLIP's loss over the pairs, and the region term if there is one."""
    regions = None
    if settings.trains_regions:
        weights = RegionWeights(settings.region_weight, settings.region_box_weight, settings.region_layer)
        sigmoid = settings.loss == "siglip"
        regions = RegionTerm(encoder, pairs.images, pairs.regions, weights, sigmoid=sigmoid)
    return ContrastiveObjective(
        encoder,
        Pixels(pairs.images, encoder.prepare),
        pairs.texts,
        settings,
        settings.seed,
        settings.loss,
        settings.gradient_cache,
        regions,
    )
