"""The encoder of a pretraining run: its pairs, the new model, the objective."""

from __future__ import annotations

from typing import Any

from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.decoding import decode
from priorkit.data.images.image_check import image_check
from priorkit.data.images.pairs import Pairs, read_pairs
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.inference.images.feature_cache import image_status_folder
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.vision.building import build_encoder
from priorkit.models.vision.encoder import Encoder
from priorkit.training.objectives.contrastive import ContrastiveObjective
from priorkit.training.pretraining.settings import PretrainEncoderSettings

STATISTICS_IMAGES = 512
"""Roughly how many images the channels' mean and standard deviation are computed from."""


def read_image_text_pairs(
    settings: PretrainEncoderSettings, work: Work[Any], runtime: Runtime
) -> tuple[Pairs, Rejects]:
    """The pairs, and the rows that cannot be used; these are written to the artifact.

    Raises:
        InputError: too many rows cannot be used.
    """
    source, rejects = work.inputs.one("pairs"), Rejects(settings.reject_limit)
    check = image_check(work, source, runtime, image_status_folder())
    pairs = read_pairs(source.path, rejects, check)
    rejects.write(work.path)
    return pairs, rejects


def new_encoder(
    settings: PretrainEncoderSettings, shape: dict[str, Any], pairs: Pairs, runtime: Runtime
) -> Encoder:
    """A new encoder on the device, with a tokenizer trained on the texts."""
    sample = [decode(ref) for ref in pairs.images[:: max(1, len(pairs) // STATISTICS_IMAGES)]]
    encoder = build_encoder(shape, pairs.texts, sample, settings.vocab_size, settings.seed, settings.loss)
    encoder.model.to(runtime.device)
    choose_attention(encoder.model, runtime.device.type)
    return encoder


def build_objective(
    settings: PretrainEncoderSettings, encoder: Encoder, pairs: Pairs
) -> ContrastiveObjective:
    """CLIP's or SigLIP's loss over the pairs."""
    return ContrastiveObjective(
        encoder,
        Pixels(pairs.images, encoder.prepare),
        pairs.texts,
        settings,
        settings.seed,
        settings.loss,
        settings.gradient_cache,
    )
