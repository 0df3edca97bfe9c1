"""Pretrain a CLIP- or SigLIP-like encoder on image-text pairs, from scratch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from priorkit.core import runtime
from priorkit.core.errors import Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import StepSettings, argument, option, redefault, reject_limit_option
from priorkit.core.step import Step
from priorkit.core.values import Count
from priorkit.core.work import Plan, Work
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.image_check import image_check
from priorkit.data.images.pairs import check_pairs, read_pairs
from priorkit.data.io.rejects import Rejects
from priorkit.inference.feature_cache import image_status_folder
from priorkit.training.engine.settings import CompileSettings, TrainingSettings
from priorkit.training.objectives.settings import GradientCacheSettings

logger = logging.getLogger(__name__)


class PretrainEncoderSettings(
    CompileSettings, GradientCacheSettings, AugmentationSettings, TrainingSettings, StepSettings
):
    """Options of ``priorkit pretrain-encoder``."""

    step: ClassVar[str] = "pretrain-encoder"
    kind: ClassVar[str] = "encoder"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit pretrain-encoder world/pairs/train.parquet --preset pocket --steps 1200 --out encoder",
        "priorkit pretrain-encoder shards/ --preset siglip-b-16 --loss siglip --batch-size 4096 "
        "--gradient-cache 256 --augment-crop 0.9 --epochs 10 --out encoder",
    )

    pairs: str = argument(
        "Image-text pairs: parquet or JSON Lines with image and text, captions in LLaVA's format, or "
        "WebDataset tar shards.",
        accepts=("world",),
        hub="dataset",
    )
    preset: str = option("pocket", "Shape of the encoder.", metavar="NAME")
    config: str | None = option(
        None,
        "Shape of the encoder from a config.json of CLIP or SigLIP, in place of --preset.",
        accepts=("encoder",),
        metavar="FILE",
    )
    loss: Literal["clip", "siglip"] = option(
        "clip", "Contrastive loss: softmax over the batch (CLIP), or a sigmoid per pair (SigLIP)."
    )
    vocab_size: Count = option(2048, "Size of the text tower's vocabulary, learnt from the texts.", ge=300)
    reject_limit: float = reject_limit_option("rows")
    batch_size: int = redefault(TrainingSettings, "batch_size", 128)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 1e-3)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 100)
    adam_beta2: float = redefault(TrainingSettings, "adam_beta2", 0.98)


def plan(settings: PretrainEncoderSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check the preset, the pairs' columns or members, and the batch."""
    from priorkit.models.vision.building import preset_shape, read_shape

    problems = Problems(UsageError)
    shape: dict[str, Any] = {}
    try:
        shape = read_shape(inputs["config"].path) if settings.config else preset_shape(settings.preset)
    except UsageError as error:
        problems.extend(error)
    if settings.config and settings.preset != PretrainEncoderSettings.model_fields["preset"].default:
        problems.add(
            "has no effect beside --config, which takes its place",
            where=f"--preset {settings.preset}",
            hint="give one of the two",
        )
    if settings.micro_batch_size:
        problems.add(
            "a contrastive loss compares all pairs of a batch; it cannot be cut into micro-batches",
            where="--micro-batch-size",
            hint="leave it at 0; to save memory use --gradient-cache, which gives the whole batch's gradient",
        )
    if settings.gradient_cache > settings.batch_size:
        logger.warning(
            f"--gradient-cache {settings.gradient_cache} is larger than the batch of {settings.batch_size} "
            "and has no effect"
        )
    problems.raise_if_any()
    files = check_pairs(inputs["pairs"].path)
    size = sum(file.stat().st_size for file in files)
    return Plan(
        [
            ("pairs", f"{len(files)} files, {size / 1e6:.1f} MB"),
            ("shape", settings.config or settings.preset),
            ("loss", settings.loss),
        ],
        payload=shape,
    )


STATISTICS_IMAGES = 512
"""About how many images the channels' mean and deviation are taken from."""


def execute(settings: PretrainEncoderSettings, work: Work) -> None:
    """Read the pairs, build the encoder with a tokenizer of their texts, train both towers."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.data.images.decoding import decode
    from priorkit.data.images.pixels import Pixels
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.kernels.pooled_token import pooled_token_only
    from priorkit.models.kernels.quick_gelu import fused_quick_gelu
    from priorkit.models.vision.building import build_encoder
    from priorkit.training.engine.compilation import compiled_blocks
    from priorkit.training.engine.loop import train
    from priorkit.training.objectives.contrastive import ContrastiveObjective

    rejects = Rejects(settings.reject_limit)
    source = work.inputs.one("pairs")
    check = image_check(work, source, started, image_status_folder())
    pairs = read_pairs(source.path, rejects, check)
    rejects.write(work.path)
    sample = [decode(ref) for ref in pairs.images[:: max(1, len(pairs) // STATISTICS_IMAGES)]]
    encoder = build_encoder(
        work.plan.payload, pairs.texts, sample, settings.vocab_size, settings.seed, settings.loss
    )
    encoder.model.to(started.device)
    choose_attention(encoder.model, started.device.type)
    objective = ContrastiveObjective(
        encoder,
        Pixels(pairs.images, encoder.prepare),
        pairs.texts,
        settings,
        settings.seed,
        settings.loss,
        settings.gradient_cache,
    )
    steps = settings.total_steps(len(pairs), 1)
    fused = compiled_blocks if settings.compile else fused_quick_gelu
    with pooled_token_only(encoder.model), fused(encoder.model):
        summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    if runtime.rank() == 0:
        encoder.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        pairs=len(pairs),
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
    )
    work.cost.update(summary.cost)


STEP = Step(PretrainEncoderSettings, plan, execute)
run = STEP.run
