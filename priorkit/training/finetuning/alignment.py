"""Alignment: language model and encoder joined by a fresh projector, which is trained on captions."""

from __future__ import annotations

from typing import Any

import torch

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.language.causal_lm import load_llm
from priorkit.models.language.tokenizer import add_location_tokens, load_tokenizer
from priorkit.models.multimodal.llava import PARTS, LlavaMultimodal, has_linear_projector
from priorkit.models.multimodal.llava_assembly import assemble_llava
from priorkit.models.vision.loading import load_encoder
from priorkit.training.finetuning.align_settings import AlignSettings
from priorkit.training.finetuning.conversation_source import mean_length, read_samples
from priorkit.training.finetuning.finetune import FinetuningRun, count_parameters
from priorkit.training.finetuning.objective import InstructionObjective
from priorkit.training.finetuning.vision_features import choose_features

CALIBRATION_IMAGES = 64
"""Images by which the fresh projector's scale is set."""


def prepare(settings: AlignSettings, work: Work[Any], runtime: Runtime) -> FinetuningRun:
    """Join the models, freeze all but the projector, read the captions and build the objective."""
    multimodal, metrics = assemble(settings, work)
    multimodal.model.to(runtime.device)
    choose_attention(multimodal.model, runtime.device.type, runtime.precision)
    train_projector_only(multimodal.model)
    chat = multimodal.chat_tokenizer(settings.max_length)
    samples, reading = read_samples(settings, work, "captions", chat, settings.seed, images=True)
    if not len(samples.images):
        raise InputError("no sample has an image; there is nothing to align", where=str(settings.captions))
    pixels = Pixels(samples.images, multimodal.prepare)
    first = range(min(len(pixels), CALIBRATION_IMAGES))
    multimodal.calibrate(torch.stack([pixels[index] for index in first]))
    length = mean_length(chat, samples) if settings.tokens else 1.0
    epochs = settings.total_epochs(len(samples), length)
    objective = InstructionObjective(
        multimodal,
        samples,
        chat,
        choose_features(multimodal, pixels, False, runtime, settings.workers, epochs),
        packing=settings.packing,
        lengths_per_octave=settings.lengths_per_octave,
    )
    rates = {"projector": settings.learning_rate}
    parts = count_parameters(multimodal.model, multimodal.parameter_part, rates, PARTS)
    return FinetuningRun(objective, parts, multimodal.save, length, reading | metrics)


def assemble(settings: AlignSettings, work: Work[Any]) -> tuple[LlavaMultimodal, dict[str, Any]]:
    """Load the models and join them by a fresh projector.

    Returns:
        The model, and metrics for the manifest: ``image_tokens``, ``vocabulary_grown_by``, ``chat_template``.
    """
    folder = work.inputs.one("llm").path
    llm, tokenizer = load_llm(folder), load_tokenizer(folder, settings.chat_template)
    add_location_tokens(tokenizer, settings.box_writer)
    rows = llm.get_input_embeddings().weight.shape[0]
    has_template = bool(tokenizer.chat_template)
    encoder = load_encoder(work.inputs.one("encoder").path, text=False)
    further = [load_encoder(source.path, text=False) for source in work.inputs.many("also_encoder")]
    multimodal = assemble_llava(
        llm,
        tokenizer,
        encoder,
        settings.feature_layer[0] if len(settings.feature_layer) == 1 else settings.feature_layer,
        settings.class_token,
        settings.seed,
        settings.projector,
        settings.image_tokens,
        further,
        settings.resize,
        settings.resample,
    )
    return multimodal, {
        "image_tokens": multimodal.image_tokens,
        "vocabulary_grown_by": multimodal.model.get_input_embeddings().weight.shape[0] - rows,
        "chat_template": settings.chat_template or ("the language model's" if has_template else "default"),
    }


def train_projector_only(model: Any) -> None:
    """Freeze all but the projector; the second matrix of a linear one is the identity and stays frozen."""
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector
    projector.requires_grad_(True)
    if has_linear_projector(model):
        projector.linear_2.requires_grad_(False)
