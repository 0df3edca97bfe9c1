"""Remediate an encoder: teach it entities by alignment and distillation, and keep the rest (VisPRE stage I)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from priorkit.core import runtime
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.settings import StepSettings, argument, option, redefault, reject_limit_option
from priorkit.core.step import Step
from priorkit.core.templates import check_templates
from priorkit.core.work import Plan, Work
from priorkit.data.images.augmentation import AugmentationSettings
from priorkit.data.images.entities import (
    EntityImages,
    candidates,
    read_entities,
    read_names,
    spelt_as,
    tell_without,
)
from priorkit.data.images.entity_split import split
from priorkit.data.images.image_check import image_check
from priorkit.data.images.pairs import Pairs, check_pairs, read_pairs
from priorkit.data.io.rejects import Rejects
from priorkit.inference.feature_cache import image_status_folder
from priorkit.training.engine.settings import CompileSettings, TrainingSettings
from priorkit.training.remediation.settings import RemediationSettings

if TYPE_CHECKING:
    from priorkit.models.vision.encoder import Encoder
    from priorkit.training.remediation.interpolation import TradeOffPoint
    from priorkit.training.remediation.objective import NameFeatures, Replay
    from priorkit.training.remediation.teachers import Teacher, ViewSchedule

logger = logging.getLogger(__name__)


class DistillEncoderSettings(RemediationSettings, CompileSettings, StepSettings):
    """Options of ``priorkit distill-encoder``."""

    step: ClassVar[str] = "distill-encoder"
    kind: ClassVar[str] = "encoder"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit distill-encoder encoder world/entity_images/train --replay world/pairs/train.parquet "
        "--held-out world/entity_images/test --off-domain world/pairs/test.parquet "
        "--interpolate 0,0.25,0.5,0.75,1 --steps 400 --out remediated",
        "priorkit distill-encoder openai/clip-vit-large-patch14 birds/ --teacher facebook/metaclip-h14 "
        "--lora-rank 16 --keep-weight 1 --held-out-share 0.2 --epochs 5 --out birds-encoder",
    )

    encoder: str = argument("Encoder to remediate.", accepts=("encoder",), hub="model")
    images: str = argument(
        "Entity images: a folder per entity, metadata.jsonl, or parquet.",
        accepts=("world",),
        metavar="IMAGES",
        hub="dataset",
    )
    names: str | None = option(
        None,
        "File of further names to tell the entities apart from, one per line.",
        accepts=("world",),
        metavar="FILE",
        advanced=True,
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",),
        "Text that stands for an entity, {} being its name; repeat to average several.",
        advanced=True,
    )
    augment_shift: int = redefault(AugmentationSettings, "augment_shift", 3)
    reject_limit: float = reject_limit_option("images")
    batch_size: int = redefault(TrainingSettings, "batch_size", 128)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.05)


def plan(settings: DistillEncoderSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check encoder, teachers, layers, terms and templates from headers; warn of what would be in vain."""
    from priorkit.models.vision.loading import check_encoder, load_config
    from priorkit.models.vision.towers import depth

    config = check_encoder(inputs["encoder"].path)
    layers = depth(load_config(inputs["encoder"].path))
    problems = settings.conflicts(layers)
    check_templates(settings.template, problems)
    problems.raise_if_any()
    for label, item in inputs.items():
        if label.startswith("teacher."):
            check_encoder(item.path, text=False)
            if item.path.resolve() == inputs["encoder"].path.resolve():
                logger.warning(
                    "a teacher is the encoder itself; --keep-weight does the same with no projection"
                )
        elif label in ("replay", "off_domain"):
            check_pairs(item.path)
    for text in settings.ineffective_options(layers):
        logger.warning(text)
    return Plan(
        [
            ("encoder", f"{config['model_type']}, image tower of {layers} layers"),
            ("teachers", str(len(settings.teacher))),
            ("trains", str(settings.trainable_parameters)),
        ],
        payload=layers,
    )


def execute(settings: DistillEncoderSettings, work: Work) -> None:
    """Fix the names' features and the teachers', train, walk back towards the original, save."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.data.images.pixels import Pixels
    from priorkit.models.kernels.attention import choose_attention
    from priorkit.models.kernels.pooled_token import pooled_token_only
    from priorkit.models.kernels.quick_gelu import fused_quick_gelu
    from priorkit.models.vision.loading import load_encoder
    from priorkit.training.engine.compilation import compiled_blocks
    from priorkit.training.engine.loop import train
    from priorkit.training.remediation.interpolation import (
        InterpolationPath,
        TradeOffMeasurement,
        measure_path,
    )
    from priorkit.training.remediation.objective import RemediationObjective, Terms
    from priorkit.training.remediation.teachers import ViewSchedule
    from priorkit.training.remediation.trainable_parameters import merge_lora, set_trainable

    # What is seen, and what it may be called.
    rejects = Rejects(settings.reject_limit)
    entities, held_out = _images(settings, work, rejects, started)
    off_domain = _pairs(work, "off_domain", rejects, started) if settings.off_domain else None
    extra = read_names(work.inputs["names"].path) if settings.names else []
    without = tell_without(entities, "nothing is learnt about them")
    names = candidates(entities.named, [*(held_out.named if held_out else ()), *extra])

    # The encoder as it was, as it will be, and what it is compared with.
    encoder = load_encoder(work.inputs["encoder"].path)
    if getattr(encoder.image_processor, "max_num_patches", 0):
        raise InputError(
            "this encoder keeps the shape of images; remediation needs one that resizes them to a fixed size",
            where=settings.encoder,
        )
    encoder.model.to(started.device)
    choose_attention(encoder.model, started.device.type)
    original = replace(encoder, model=copy.deepcopy(encoder.model).eval().requires_grad_(False))
    pixels = Pixels(entities.images, encoder.prepare)
    fixed = settings.teacher_views if settings.augments else 1
    views = ViewSchedule(pixels, settings, settings.seed, fixed if settings.teacher else 0)
    with started.autocast():
        teachers = _teachers(settings, work, entities, views, started)
    objective = RemediationObjective(
        encoder,
        views,
        entities.entity_of,
        _names(settings, encoder, names),
        Terms(
            settings.contrastive,
            settings.contrastive_weight,
            settings.keep_weight,
            settings.relational_temperature,
        ),
        settings.feature_layer,
        teachers,
        _replay(settings, work, rejects, encoder, started),
        original if settings.keep_weight else None,
        settings.seed,
        settings.gradient_cache,
    )
    rejects.write(work.path)

    # Stage I.
    set_trainable(encoder.model, settings.trainable_parameters)
    steps = settings.total_steps(len(entities.images), 1)
    # The keep-term reads an earlier layer's tokens, unless told to read the last one's.
    models = (encoder.model, original.model) if settings.feature_layer not in (-1, work.plan.payload) else ()
    fused = compiled_blocks if settings.compile else fused_quick_gelu
    with pooled_token_only(*models), fused(encoder.model, original.model):
        summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    merge_lora(encoder.model, settings.trainable_parameters)

    # From the original (0) to the tuned encoder (1): gain on held-out images, cost elsewhere.
    line = InterpolationPath(encoder.model, original.model)
    measurement = TradeOffMeasurement(names, settings.template, held_out, off_domain, settings.seed)
    saved = settings.saved_share
    if runtime.rank() == 0:
        if held_out or off_domain:
            shares = sorted({0.0, saved, *settings.interpolate})
            _report(work, measure_path(line, measurement, encoder, shares), saved)
        line.set(saved)
        encoder.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        entities=len(entities.entities),
        entities_without_images=without,
        names=len(names),
        images=len(entities.images),
        held_out_images=len(held_out.images) if held_out else 0,
        saved_share=saved,
        rejected=len(rejects),
        unusual_images=rejects.unusual_images(),
    )
    work.cost.update(summary.cost)


def _images(
    settings: DistillEncoderSettings, work: Work, rejects: Rejects, started: runtime.Runtime
) -> tuple[EntityImages, EntityImages | None]:
    """What is trained on, and what is held out."""

    def read(label: str) -> EntityImages:
        source = work.inputs[label]
        check = image_check(work, source, started, image_status_folder(), "entities")
        return read_entities(source.path, rejects, check=check)

    entities = read("images")
    if settings.held_out:
        # One entity, however the two sources spell its name.
        held_out = spelt_as(read("held_out"), entities.named)
        tell_without(held_out, "they are not held out")
        return entities, held_out
    if not settings.held_out_share:
        return entities, None
    trained, held_out = split(entities, settings.held_out_share, settings.seed)
    if not held_out.images:
        raise UsageError("every entity has a single image; none can be held out", where="--held-out-share")
    return trained, held_out


def _pairs(work: Work, label: str, rejects: Rejects, started: runtime.Runtime) -> Pairs:
    source = work.inputs[label]
    check = image_check(work, source, started, image_status_folder())
    return read_pairs(source.path, rejects, check)


def _names(settings: DistillEncoderSettings, encoder: Encoder, names: Sequence[str]) -> NameFeatures:
    """The names' text features: once and for all, or anew at every step where the text tower trains."""
    from priorkit.models.vision.encoder import zero_shot_head
    from priorkit.training.remediation.objective import NameFeatures, TrainableNameHead

    fixed = zero_shot_head(encoder, names, settings.template).to(encoder.device)
    if not settings.train_text:
        return NameFeatures(fixed)
    return NameFeatures(fixed, TrainableNameHead(encoder, names, settings.template, settings.gradient_cache))


def _teachers(
    settings: DistillEncoderSettings,
    work: Work,
    entities: EntityImages,
    views: ViewSchedule,
    started: runtime.Runtime,
) -> list[Teacher]:
    """The teachers' features of the views that the student will see, each at its own resolution."""
    from priorkit.data.images.pixels import Pixels
    from priorkit.models.vision.loading import load_encoder
    from priorkit.training.remediation.teachers import Teacher, cache_key, teacher_features

    found: list[Teacher] = []
    for number, weight in enumerate(settings.teacher_weights):
        source = work.inputs[f"teacher.{number}"]
        teacher = load_encoder(source.path, text=False)
        teacher.model.to(started.device)
        key = cache_key(
            teacher=source.stamp() or source.digest(),
            images=work.inputs["images"].stamp() or work.inputs["images"].digest(),
            used=[ref.name for ref in entities.images],
            views=[views.fixed, settings.seed, list(views.pixels.size)] if settings.augments else [],
            augmentation=settings.model_dump(include=set(AugmentationSettings.model_fields)),
            precision=started.precision,
            device=started.device.type,
        )
        pixels = Pixels(entities.images, teacher.prepare)
        features = teacher_features(teacher, pixels, views, f"teacher {number + 1}", key)
        found.append(Teacher(features, weight, settings.relational_weight))
    return found


def _replay(
    settings: DistillEncoderSettings,
    work: Work,
    rejects: Rejects,
    encoder: Encoder,
    started: runtime.Runtime,
) -> Replay | None:
    from priorkit.data.images.pixels import Pixels
    from priorkit.training.objectives.contrastive import Captions
    from priorkit.training.remediation.objective import Replay
    from priorkit.training.remediation.teachers import ViewSchedule

    if not settings.replays:
        return None
    pairs = _pairs(work, "replay", rejects, started)
    views = ViewSchedule(Pixels(pairs.images, encoder.prepare), settings, settings.seed + 1, 0)
    return Replay(views, Captions(encoder, pairs.texts), settings.replay_per_image, settings.replay_weight)


def _report(work: Work, points: Sequence[TradeOffPoint], saved: float) -> None:
    """Before, after and the trade-off between: manifest, tables and plot."""
    from priorkit.data.io.tables import write_table
    from priorkit.report import figures
    from priorkit.report.plots.trade_off import trade_off

    before, after = points[0], next(point for point in points if point.share == saved)
    work.metrics.update(before=before.row(), after=after.row(), trade_off=[point.row() for point in points])
    retrieval = [point.retrieval for point in points if point.retrieval is not None]
    ranks = [point.overall["mean_rank"] for point in points if point.ranks is not None]
    figure = trade_off(
        [point.share for point in points], {"Rank_e": ranks} if ranks else {}, retrieval or None, saved
    )
    (work.path / "trade_off.svg").write_bytes(figures.to_svg(figure))
    (work.path / "trade_off.png").write_bytes(figures.to_png(figure))
    if before.retrieval and after.retrieval:
        old, new = before.retrieval.value, after.retrieval.value
        logger.info(f"  off-domain retrieval (MRR): {old:.3f} before, {new:.3f} after")
    if before.ranks is None:
        return
    columns = {"entity": before.ranks.entity, "images": before.ranks.images}
    for point in points:
        if point.ranks is not None:
            columns[f"mean_rank_at_{point.share:g}"] = point.ranks.mean_rank
    write_table(columns, work.path / "held_out_ranks.parquet")
    old, new = before.overall["mean_rank"].value, after.overall["mean_rank"].value
    logger.info(f"  mean Rank_e on held-out images: {old:.2f} before, {new:.2f} after (low: strong prior)")


STEP = Step(DistillEncoderSettings, plan, execute)
run = STEP.run
