"""Remediate an encoder: teach it entities by alignment and distillation, and keep the rest (VisPRE stage I)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from priorkit.core import runtime
from priorkit.core.artifact import Artifact
from priorkit.core.console import console
from priorkit.core.errors import InputError, UsageError
from priorkit.core.inputs import Input
from priorkit.core.lifecycle import Plan, Work, produce
from priorkit.core.settings import Numbers, StepSettings, argument, option, redefault
from priorkit.data.entities import EntityImages, read_entities, read_names
from priorkit.data.pairs import read_pairs
from priorkit.data.rejects import Rejects
from priorkit.models.folder import read_config
from priorkit.training.settings import TrainingSettings

if TYPE_CHECKING:
    from priorkit.data.pixels import Pixels
    from priorkit.models.encoder import Encoder
    from priorkit.training.remediation import Replay, Teacher


class DistillEncoderSettings(TrainingSettings, StepSettings):
    """Options of ``priorkit distill-encoder``."""

    step: ClassVar[str] = "distill-encoder"
    kind: ClassVar[str] = "encoder"
    examples: ClassVar[tuple[str, str]] = (
        "priorkit distill-encoder encoder world/entity_images/train --replay world/pairs/train.parquet "
        "--steps 400 --out remediated",
        "priorkit distill-encoder openai/clip-vit-large-patch14 birds/ --teacher facebook/metaclip-h14 "
        "--lora-rank 16 --keep-weight 1 --epochs 5 --out birds-encoder",
    )

    encoder: str = argument("Encoder to remediate.", accepts=("encoder",), hub="model")
    images: str = argument(
        "Entity images: a folder per entity, metadata.jsonl, or parquet.",
        accepts=("world",),
        metavar="IMAGES",
        hub="dataset",
    )
    teacher: tuple[str, ...] = option(
        (),
        "Encoder whose image features are distilled; repeat for several.",
        accepts=("encoder",),
        hub="model",
    )
    teacher_weight: Numbers = option((), "Weight of each teacher's term, in order; 1 where not given.")
    contrastive_weight: float = option(1.0, "Weight of the alignment of images with entity names.", ge=0)
    keep_weight: float = option(1.0, "Weight of staying close to the original encoder's tokens.", ge=0)
    replay: str | None = option(
        None, "General image-text pairs replayed beside the entities.", accepts=("world",), hub="dataset",
        metavar="PAIRS",
    )  # fmt: skip
    replay_weight: float = option(1.0, "Weight of the contrastive loss on the replayed pairs.", ge=0)
    replay_per_image: int = option(1, "Replayed pairs per entity image.", ge=1)
    names: str | None = option(
        None,
        "File of further names to tell the entities apart from, one per line.",
        accepts=("world",),
        metavar="FILE",
    )
    template: tuple[str, ...] = option(
        ("a photo of a {}",), "Text that stands for an entity, {} being its name; repeat to average several."
    )
    feature_layer: int = option(-2, "Hidden state that the multimodal model reads, as in LLaVA.")
    lora_rank: int = option(
        0, "Rank of LoRA on the image tower, merged at the end; 0 trains all weights.", ge=0
    )
    last_blocks: int = option(0, "Train only the last N blocks of the image tower; 0 trains all.", ge=0)
    interpolate: float = option(
        1.0, "Share of the tuned weights in the result, the rest being the original's (WiSE-FT).", ge=0, le=1
    )
    augment_shift: int = option(
        3, "Images are moved by up to this many pixels each time they are seen.", ge=0
    )
    reject_limit: float = option(0.01, "Share of broken images tolerated, 0 to 1.", ge=0, le=1)
    batch_size: int = redefault(TrainingSettings, "batch_size", 128)
    learning_rate: float = redefault(TrainingSettings, "learning_rate", 3e-4)
    warmup_steps: int = redefault(TrainingSettings, "warmup_steps", 20)
    weight_decay: float = redefault(TrainingSettings, "weight_decay", 0.05)


def plan(settings: DistillEncoderSettings, inputs: Mapping[str, Input]) -> Plan:
    """Check encoder, layers, weights and templates from headers."""
    from priorkit.models.encoder import check_encoder

    config = check_encoder(inputs["encoder"].path)
    layers = int(config["vision_config"].get("num_hidden_layers", 12))
    if not -layers - 1 <= settings.feature_layer <= layers:
        raise UsageError(
            f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
            where="--feature-layer",
        )
    if settings.teacher_weight and len(settings.teacher_weight) != len(settings.teacher):
        raise UsageError(
            f"{len(settings.teacher_weight)} weights for {len(settings.teacher)} teachers",
            where="--teacher-weight",
        )
    if not (settings.contrastive_weight or settings.teacher):
        raise UsageError("nothing to learn: no contrastive term and no teacher", where="--contrastive-weight")
    if settings.replay and settings.micro_batch_size:
        raise UsageError(
            "replayed pairs are compared within a forward pass; it cannot be cut into micro-batches",
            where="--micro-batch-size",
            hint="leave it at 0, or leave --replay out",
        )
    if any("{}" not in template for template in settings.template):
        raise UsageError("a template needs {} where the name goes", where="--template")
    if settings.teacher and settings.augment_shift:
        raise UsageError(
            "a teacher's features are those of the images as they are; moved images would not match them",
            where="--augment-shift",
            hint="use --augment-shift 0 with --teacher",
        )
    for label in (name for name in inputs if name.startswith("teacher.")):
        read_config(inputs[label].path)
    _warn_if_unseen(settings, layers)
    return Plan(
        [
            ("encoder", f"{config['model_type']}, image tower of {layers} layers"),
            ("teachers", str(len(settings.teacher))),
            (
                "trains",
                f"LoRA of rank {settings.lora_rank}"
                if settings.lora_rank
                else "all weights of the image tower",
            ),
        ]
    )


def _warn_if_unseen(settings: DistillEncoderSettings, layers: int) -> None:
    """Say so when the trained blocks come after the layer that the multimodal model reads."""
    read = settings.feature_layer if settings.feature_layer >= 0 else layers + 1 + settings.feature_layer
    first_trained = layers - settings.last_blocks
    if settings.last_blocks and first_trained >= read:
        console.warn(
            f"the trained blocks ({first_trained} and up) come after hidden state {read}, which the multimodal "
            "model reads: Rank_e will change, the multimodal model will not"
        )


def execute(settings: DistillEncoderSettings, work: Work) -> None:
    """Fix the names' features, cache the teachers', train the image tower, interpolate, save."""
    started = runtime.start(settings.seed, settings.device, settings.precision)
    from priorkit.data.pixels import Pixels
    from priorkit.models.attention import choose_attention
    from priorkit.models.encoder import entity_head, load_encoder
    from priorkit.training.loop import train
    from priorkit.training.remediation import RemediationObjective, Weights

    rejects = Rejects(settings.reject_limit)
    entities = read_entities(work.inputs["images"].path, rejects)
    encoder = load_encoder(work.inputs["encoder"].path)
    encoder.model.to(started.device)
    choose_attention(encoder.model, started.device.type)
    pixels = Pixels(entities.images, encoder.prepare)
    names = _names(settings, work, entities)
    original = copy.deepcopy(encoder.model).eval().requires_grad_(False)
    objective = RemediationObjective(
        encoder,
        pixels,
        entities.entity_of,
        entity_head(encoder, names, settings.template).to(started.device),
        Weights(settings.contrastive_weight, settings.keep_weight),
        settings.feature_layer,
        _teachers(settings, work, entities, started.device),
        _replay(settings, work, rejects, encoder),
        original if settings.keep_weight else None,
        settings.augment_shift,
        settings.seed,
    )
    rejects.write(work.path)
    choose_trained(settings, encoder)
    steps = settings.total_steps(len(entities.images), 1)
    summary = train(objective, settings, started, work.path, work.state, steps, settings.step)
    if settings.lora_rank:
        encoder.model.vision_model = encoder.model.vision_model.merge_and_unload()
    interpolate(encoder.model, original, settings.interpolate)
    if runtime.rank() == 0:
        encoder.save(work.path)
    work.metrics.update(
        loss=summary.loss,
        steps=summary.steps,
        entities=len(entities.entities),
        names=len(names),
        images=len(entities.images),
        rejected=len(rejects),
    )
    work.cost.update(training_seconds=summary.seconds, images_per_second=summary.weight / summary.seconds)


def _names(settings: DistillEncoderSettings, work: Work, entities: EntityImages) -> tuple[str, ...]:
    from priorkit.data.entities import candidates

    extra = read_names(work.inputs["names"].path) if settings.names else []
    return candidates(entities.entities, extra)


def _teachers(
    settings: DistillEncoderSettings, work: Work, entities: EntityImages, device: Any
) -> Sequence[Teacher]:
    """The teachers' features of all entity images, computed once: views are fixed."""
    import torch

    from priorkit.data.pixels import Pixels
    from priorkit.models.encoder import load_encoder
    from priorkit.training.remediation import Teacher

    found: list[Teacher] = []
    for number in range(len(settings.teacher)):
        teacher = load_encoder(work.inputs[f"teacher.{number}"].path)
        teacher.model.to(device)
        pixels = Pixels(entities.images, teacher.prepare)
        starts = range(0, len(pixels), 64)
        batches = (torch.stack([pixels[i] for i in range(s, min(s + 64, len(pixels)))]) for s in starts)
        features = teacher.embed_images(
            console.track(batches, f"teacher {number + 1}", len(starts), "batches")
        )
        weight = settings.teacher_weight[number] if settings.teacher_weight else 1.0
        found.append(Teacher(features, weight))
    return found


def _replay(
    settings: DistillEncoderSettings, work: Work, rejects: Rejects, encoder: Encoder
) -> Replay | None:
    from priorkit.data.pixels import Pixels
    from priorkit.training.remediation import Replay

    if not settings.replay or not settings.replay_weight:
        return None
    pairs = read_pairs(work.inputs["replay"].path, rejects)
    pixels: Pixels = Pixels(pairs.images, encoder.prepare)
    return Replay(pixels, pairs.texts, settings.replay_per_image, settings.replay_weight)


LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
"""The matrices of an image tower's blocks in CLIP, SigLIP and their like."""


def choose_trained(settings: DistillEncoderSettings, encoder: Encoder) -> None:
    """Freeze everything but what of the image tower is to be trained; the text tower stays frozen.

    Raises:
        InputError: LoRA finds none of its matrices in the tower.
    """
    model = encoder.model
    model.requires_grad_(False)
    if settings.lora_rank:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=LORA_TARGETS
        )
        try:
            model.vision_model = get_peft_model(model.vision_model, config)
        except ValueError as error:
            raise InputError(
                f"LoRA finds no matrices in the image tower: {error}", where=settings.encoder
            ) from None
        return
    blocks = model.vision_model.encoder.layers
    parts = list(blocks)[-settings.last_blocks :] if settings.last_blocks else [model.vision_model]
    for part in parts:
        part.requires_grad_(True)
    if getattr(model, "visual_projection", None) is not None:
        model.visual_projection.requires_grad_(True)


def interpolate(model: Any, original: Any, share: float) -> None:
    """Weights between the original (share 0) and the tuned model (share 1), in place (WiSE-FT)."""
    import torch

    if share == 1.0:
        return
    before = dict(original.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.lerp_(before[name], 1.0 - share)


def run(settings: DistillEncoderSettings) -> Artifact | None:
    """Remediate an encoder; see :class:`DistillEncoderSettings`."""
    return produce(settings, plan, execute)
