"""Training LION: what is loaded, frozen and trained in a stage."""

from __future__ import annotations

from typing import Any

import torch

from priorkit.architectures.lion.augmentation import SampleAugmentation
from priorkit.architectures.lion.build import LionMultimodal
from priorkit.architectures.lion.conversations import read_task_conversations, select_task_types
from priorkit.architectures.lion.loading import load_for_training, store_frozen
from priorkit.architectures.lion.objective import LionObjective
from priorkit.architectures.lion.plan import LionPlan
from priorkit.architectures.lion.samples import (
    LionSamples,
    tokenize_samples,
    warn_of_misaligned_boxes,
)
from priorkit.architectures.lion.settings import LionTuneSettings
from priorkit.architectures.lion.tokenization import ConversationTokenizer
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.pixels import Pixels
from priorkit.data.io.rejects import Rejects
from priorkit.training.finetuning.finetune import FinetuningRun, count_parameters
from priorkit.training.finetuning.vision_features import (
    PerStepFeatures,
    VisionFeatures,
    choose_features,
)

CALIBRATION_IMAGES = 64
"""Images by which randomly initialized branches are scaled."""


def prepare(settings: LionTuneSettings, work: Work, runtime: Runtime) -> FinetuningRun:
    """Read the conversations, load the model, set what trains, build the objective."""
    planned: LionPlan = work.plan.payload
    tags = planned.fields["tags"]
    rejects = Rejects(settings.reject_limit)
    conversations = read_task_conversations(settings, work, tags, rejects)
    indices, counts = select_task_types(conversations, planned.task_types)
    lion = load_for_training(planned, settings.seed, runtime.device, settings.chat_template)
    tokenizer = ConversationTokenizer(
        lion.chat_tokenizer(settings.max_length),
        tags,
        planned.fields["instruction_length"],
        settings.box_writer,
    )
    samples = tokenize_samples(conversations, indices, tokenizer, rejects)
    rejects.write(work.path)
    warn_of_misaligned_boxes(planned.base.path, samples)
    pixels = Pixels(samples.images, lion.prepare)
    if planned.start is None and len(pixels):
        first = range(min(len(pixels), CALIBRATION_IMAGES))
        lion.calibrate(torch.stack([pixels[index] for index in first]))
    store_frozen(lion.model, settings.frozen_dtype, runtime)
    augmentation = None
    if settings.augments:
        augmentation = SampleAugmentation(settings, pixels, tokenizer, settings.seed)
    rates: dict[str, float] = dict.fromkeys(planned.trained, settings.learning_rate)
    if settings.aggregator_learning_rate and "aggregator" in rates:
        rates["aggregator"] = settings.aggregator_learning_rate
    objective = LionObjective(
        lion,
        samples,
        vision_features(settings, lion, samples, pixels, runtime),
        {part: rate / settings.learning_rate for part, rate in rates.items()},
        settings.packing,
        alternating=settings.batch_size if settings.batches == "alternating" else 0,
        augmentation=augmentation,
        seed=settings.seed,
        router_decays=settings.router_weight_decay,
    )
    figures: dict[str, Any] = {
        "rejected": len(rejects),
        "truncated": samples.truncated,
        "shortened_tag_lists": samples.shortened,
        "task_types": counts,
    }
    if planned.start is not None:
        # The adapter is an input of the run, its base is not.
        figures["base"] = {"path": planned.base_name, "digest": planned.base.digest()}
    return FinetuningRun(
        objective,
        count_parameters(lion.model, lion.parameter_part, rates, ()),
        lambda folder: lion.save_adapter(folder, planned.base_name, settings.chosen_stage),
        samples.mean_length,
        figures,
    )


def vision_features(
    settings: LionTuneSettings, lion: LionMultimodal, samples: LionSamples, pixels: Pixels, runtime: Runtime
) -> VisionFeatures:
    """The encoder's hidden states: computed in every step with augmentation, else cached where that saves work."""
    if settings.augments:
        return PerStepFeatures(lion, pixels, trained=False)
    epochs = settings.total_steps(len(samples), samples.mean_length) * settings.batch_size / len(samples)
    # An image is encoded once for every sample that shows it.
    epochs *= len(samples.image_numbers) / max(1, len(pixels))
    return choose_features(
        lion, pixels, trained=False, runtime=runtime, workers=settings.workers, epochs=epochs
    )
