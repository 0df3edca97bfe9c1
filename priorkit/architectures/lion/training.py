"""Training LION: what is loaded, frozen and trained in a stage."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from priorkit.architectures.lion.augmentation import Variation
from priorkit.architectures.lion.build import LionMultimodal, compose, load_on_base
from priorkit.architectures.lion.modeling.configuration import (
    TASK_TYPES,
)
from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.plan import LionPlan, source_paths
from priorkit.architectures.lion.pretrained_qformer import load_queries
from priorkit.architectures.lion.samples import LionSample, encode_all, images_of, of_types, read
from priorkit.architectures.lion.settings import LionTuneSettings
from priorkit.core.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.conversations.task_conversations import REGION
from priorkit.data.images.decoding import upright_size
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.multimodal.box_alignment import misaligned_images, misalignment_warning
from priorkit.models.multimodal.llava import has_linear_projector, load_llava
from priorkit.training.finetuning.finetune import FinetuningRun, count_parameters
from priorkit.training.finetuning.vision_features import PerStepFeatures, choose_features

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 64
"""Images by which fresh branches are scaled."""


def prepare(settings: LionTuneSettings, work: Work, runtime: Runtime) -> FinetuningRun:
    """Load, freeze, read the data and make the objective."""
    planned: LionPlan = work.plan.payload
    soft = planned.fields["tags"]
    rejects = Rejects(settings.reject_limit)
    samples, counts = of_types(read(source_paths(work.inputs), settings, soft, rejects), planned.task_types)
    if planned.start is None:
        lion = compose(load_llava(planned.base.path), planned.fields, settings.seed)
        if planned.queries is not None:
            load_queries(lion.model.model.lion.qformer, planned.queries)
    else:
        lion = load_on_base(planned.base.path, planned.start, tags=soft, seed=settings.seed)
    lion.model.to(runtime.device)
    choose_attention(lion.model, runtime.device.type)
    freeze(lion, planned.trained)
    chat = lion.chat_tokenizer(settings.max_length)
    encoded, shortened = encode_all(samples, chat, soft, rejects, planned.fields["instruction_length"])
    rejects.write(work.path)
    _warn_of_misaligned_boxes(planned.base.path, encoded)
    truncated = sum(sample.encoded.truncated for sample in encoded)
    if shortened:
        logger.warning(f"{shortened} lists of tags were shortened to fit {chat.max_length} tokens")
    if truncated:
        logger.warning(f"{truncated} answers are cut to fit {chat.max_length} tokens")
    pixels = Pixels(images_of(encoded), lion.prepare)
    if planned.start is None and len(pixels):
        first = range(min(len(pixels), CALIBRATION_IMAGES))
        lion.calibrate(torch.stack([pixels[index] for index in first]))
    length = sum(len(sample.encoded.input_ids) for sample in encoded) / len(encoded)
    epochs = settings.total_steps(len(encoded), length) * settings.batch_size / len(encoded)
    # An image is looked at once for every sample that shows it.
    epochs *= sum(len(sample.numbers) for sample in encoded) / max(1, len(pixels))
    variation = None
    if settings.augments:
        variation = Variation(
            settings, pixels, chat, soft, planned.fields["instruction_length"], int(settings.seed)
        )
        views = PerStepFeatures(lion, pixels, trained=False)
    else:
        views = choose_features(
            lion, pixels, trained=False, runtime=runtime, workers=settings.workers, epochs=epochs
        )
    rates: dict[str, float] = dict.fromkeys(planned.trained, float(settings.learning_rate))
    if settings.aggregator_learning_rate and "aggregator" in rates:
        rates["aggregator"] = settings.aggregator_learning_rate
    objective = LionObjective(
        lion,
        encoded,
        chat,
        views,
        {part: rate / settings.learning_rate for part, rate in rates.items()},
        settings.packing,
        alternating=settings.batch_size if settings.batches == "alternating" else 0,
        variation=variation,
        seed=int(settings.seed),
    )
    figures: dict[str, Any] = {
        "rejected": len(rejects),
        "truncated": truncated,
        "shortened_tag_lists": shortened,
        "task_types": counts,
    }
    if planned.start is not None:
        # The adapter is an input of the run, what it stands on is not.
        figures["base"] = {"path": planned.base_name, "digest": planned.base.digest()}
    return FinetuningRun(
        objective,
        count_parameters(lion.model, lion.parameter_part, rates, ()),
        lambda folder: lion.save_adapter(folder, planned.base_name, settings.chosen_stage),
        length,
        figures,
    )


def _warn_of_misaligned_boxes(base: Path, samples: Sequence[LionSample]) -> None:
    """Warn if images with boxes are cropped or padded: the model would learn shifted boxes, and the loss does not show it."""
    misaligned = misaligned_images(base)
    if misaligned == "none":
        return
    region = TASK_TYPES.index(REGION)
    placed = {
        number: image
        for sample in samples
        if sample.task == region
        for number, image in zip(sample.numbers, sample.images, strict=True)
    }
    if text := misalignment_warning(
        misaligned, {number: upright_size(image) for number, image in placed.items()}
    ):
        logger.warning(text)


def freeze(lion: LionMultimodal, trained: Sequence[str]) -> None:
    """Let exactly these parts be trained; of a linear projector the second matrix is the identity and stays."""
    fixed = has_linear_projector(lion.model)
    for name, parameter in lion.model.named_parameters():
        identity = fixed and "multi_modal_projector.linear_2" in name
        parameter.requires_grad_(lion.parameter_part(name) in trained and not identity)
