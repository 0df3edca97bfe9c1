"""Pretrain a CLIP- or SigLIP-like encoder on image-text pairs, from scratch."""

from __future__ import annotations

import logging
from typing import Any

from priorkit.core.errors import Problems, UsageError
from priorkit.core.process import runtime
from priorkit.core.step import Step
from priorkit.core.work import Inputs, Plan, Work
from priorkit.training.pretraining.settings import PretrainEncoderSettings

logger = logging.getLogger(__name__)


def plan(settings: PretrainEncoderSettings, inputs: Inputs) -> Plan[dict[str, Any]]:
    """Check the preset, the pairs' columns or members, and the batch."""
    from priorkit.data.columns import check_image_folders
    from priorkit.data.pairs.reading import check_pairs, check_regions
    from priorkit.models.vision.building import preset_shape, read_shape
    from priorkit.training.pretraining.region_check import check_region_options

    problems = Problems(UsageError)
    shape: dict[str, Any] = {}
    config = inputs.optional("config")
    with problems.collecting():
        shape = read_shape(config.path) if config else preset_shape(settings.preset)
    if config and settings.preset != PretrainEncoderSettings.model_fields["preset"].default:
        problems.add(
            "cannot be combined with --config",
            where=f"--preset {settings.preset}",
            hint="give one of the two",
        )
    if settings.micro_batch_size:
        problems.add(
            "a contrastive loss compares all pairs of a batch; it cannot be split into micro-batches",
            where="--micro-batch-size",
            hint="leave it at 0; to save memory use --gradient-cache, which gives the same gradient as the full batch",
        )
    if settings.gradient_cache > settings.batch_size:
        logger.warning(
            f"--gradient-cache {settings.gradient_cache} is larger than the batch of {settings.batch_size} "
            "and has no effect"
        )
    check_region_options(settings, shape, problems)
    problems.raise_if_any()
    check_image_folders(settings, [])
    files = check_pairs(inputs.one("pairs").path, settings.layout)
    size = sum(file.stat().st_size for file in files)
    facts = [
        ("pairs", f"{len(files)} files, {size / 1e6:.1f} MB"),
        ("shape", settings.config or settings.preset),
        ("loss", settings.loss),
    ]
    if settings.trains_regions:
        check_regions(inputs.one("pairs").path, settings.layout)
        facts.append(("regions", f"the patches of hidden state {settings.region_layer} are trained"))
    return Plan(facts, payload=shape)


def execute(settings: PretrainEncoderSettings, work: Work[dict[str, Any]]) -> None:
    """Read the pairs, build the encoder with a tokenizer trained on their texts, train both towers."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.training.engine.compilation import fast_encoders
    from priorkit.training.engine.loop import train
    from priorkit.training.engine.metrics_log import METRICS, final_means
    from priorkit.training.pretraining.encoder import build_objective, new_encoder, read_image_text_pairs

    pairs, rejects = read_image_text_pairs(settings, work, started)
    encoder = new_encoder(settings, work.plan.payload, pairs, started)
    objective = build_objective(settings, encoder, pairs)
    steps = settings.total_steps(len(pairs), 1)
    with fast_encoders(encoder.model, compiled=settings.compile, pooled_only=objective.pooled_only):
        summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    terms: dict[str, float] = {}
    if runtime.rank() == 0:
        encoder.save(work.path)
        terms = final_means(work.path / METRICS, objective.metrics, steps)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        pairs=len(pairs),
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
    )
    if settings.trains_regions:
        work.metrics.update(regions=sum(map(len, pairs.regions)), **terms)
    work.cost.update(summary.cost)


STEP = Step(PretrainEncoderSettings, plan, execute)
run = STEP.run
