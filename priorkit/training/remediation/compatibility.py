"""Checks before anything is read: encoder, teachers and pairs from headers, settings against each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from priorkit.core.errors import Problems, UsageError
from priorkit.core.inputs import Input
from priorkit.core.options.specs import flag_of, refuse_changed
from priorkit.core.options.templates import check_templates
from priorkit.core.work import Inputs
from priorkit.data.columns import layout_of
from priorkit.data.images.entities import check_entities, check_names_file, read_names
from priorkit.data.pairs.reading import check_pairs
from priorkit.models.vision.loading import check_encoder, load_config
from priorkit.models.vision.towers import depth
from priorkit.training.remediation.settings import DistillEncoderSettings, RemediationSettings
from priorkit.training.remediation.terms import TERMS, active_terms

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderHeader:
    """What the plan knows of the encoder.

    Attributes:
        model_type: transformers' name of the family.
        layers: number of layers of the image tower; 0 where it has none that are numbered.
    """

    model_type: str
    layers: int

    def reads_earlier_layers(self, layers: Sequence[int]) -> bool:
        """Whether hidden states come before the last layer's output."""
        return all(layer not in (-1, self.layers) for layer in layers)


def check_run(settings: DistillEncoderSettings, inputs: Inputs) -> EncoderHeader:
    """Check inputs and settings, and warn of options without effect.

    Raises:
        InputError: an input is not what its option needs.
        UsageError: settings contradict each other; all of them are named.
    """
    encoder = inputs.one("encoder")
    config = check_encoder(encoder.path)
    header = EncoderHeader(config["model_type"], depth(load_config(encoder.path)))
    problems = conflicts(settings, header.layers)
    check_templates(settings.template, problems)
    problems.raise_if_any()
    for teacher in inputs.many("teacher"):
        _check_teacher(settings, teacher)
        if teacher.path.resolve() == encoder.path.resolve():
            logger.warning(
                "a teacher is the encoder itself; --keep-weight does the same without a projection"
            )
    for pairs in (inputs.optional("replay"), inputs.optional("off_domain")):
        if pairs is not None:
            check_pairs(pairs.path, layout_of(settings))
    _check_entities(settings, inputs)
    for text in ineffective_options(settings, header.layers):
        logger.warning(text)
    return header


def _check_teacher(settings: DistillEncoderSettings, teacher: Input) -> None:
    """Check a teacher for the terms that are computed for it.

    Raises:
        InputError: it is no encoder, or has no text tower where its distribution over names is matched.
        UsageError: it has no such layer.
    """
    number = int(teacher.setting.rpartition(".")[2]) if "." in teacher.setting else 0
    weights = next(term for term in TERMS if term.weight == "teacher_logit_weight").weights(settings)
    check_encoder(teacher.path, text=bool(weights[min(number, len(weights) - 1)]))
    layers = depth(load_config(teacher.path))
    if settings.matches_patches and layers and not -layers - 1 <= settings.teacher_layer <= layers:
        raise UsageError(
            f"the teacher has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
            where=f"--teacher-layer {settings.teacher_layer}",
        )


def _check_entities(settings: DistillEncoderSettings, inputs: Inputs) -> None:
    """Check the entity images and the file of names as far as lists and text files show.

    Raises:
        InputError: they hold no images, or no names.
        UsageError: no image can be held out.
    """
    layout = settings.entity_layout(inputs)
    entities = check_entities(inputs.one("images").path, settings.reject_limit, layout)
    if held_out := inputs.optional("held_out"):
        check_entities(held_out.path, settings.reject_limit, replace(layout, split=""))
    elif settings.held_out_share and entities is not None and entities.single:
        raise UsageError("every entity has a single image; none can be held out", where="--held-out-share")
    if names := inputs.optional("names"):
        check_names_file(names.path, f"--names {settings.names}")
        read_names(names.path)


def conflicts(settings: RemediationSettings, layers: int) -> Problems:
    """Settings that contradict each other.

    Args:
        settings: of the run.
        layers: number of layers of the image tower; 0 where it has none that are numbered.
    """
    problems = Problems(UsageError)
    for flag, number in (
        ("--feature-layer", settings.feature_layer),
        *(("--keep-layer", layer) for layer in settings.keep_layer),
    ):
        if layers and not -layers - 1 <= number <= layers:
            problems.add(
                f"the image tower has {layers} layers; hidden states are numbered {-layers - 1} to {layers}",
                where=flag if flag == "--feature-layer" else f"{flag} {number}",
            )
    teachers, weights = len(settings.teacher), len(settings.teacher_weight)
    if weights not in (0, teachers):
        problems.add(
            f"{weights} weights for {teachers} teachers",
            where="--teacher-weight",
            hint="give one per --teacher, in order",
        )
    _check_teacher_terms(settings, problems)
    _check_terms(settings, problems)
    _check_trainable(settings, problems)
    _check_trade_off(settings, problems)
    return problems


def _check_teacher_terms(settings: RemediationSettings, problems: Problems) -> None:
    """Check the weights of the terms of each teacher."""
    teachers = len(settings.teacher)
    for flag, weights in (
        ("--teacher-patch-weight", settings.teacher_patch_weight),
        ("--teacher-logit-weight", settings.teacher_logit_weight),
    ):
        if any(weight < 0 for weight in weights):
            problems.add("a weight must not be negative", where=flag)
        if teachers and len(weights) not in (1, teachers):
            problems.add(
                f"{len(weights)} weights for {teachers} teachers",
                where=flag,
                hint="give one for all, or one per --teacher, in order",
            )
    if settings.keep_layer and not settings.kept_layers:
        problems.add(
            "no tokens are kept", where="--keep-layer", hint="give --keep-weight or --keep-class-weight"
        )
    if settings.teacher_layer != -2 and not settings.matches_patches:
        problems.add("no effect without --teacher-patch-weight", where="--teacher-layer", hint="leave it out")


def _check_terms(settings: RemediationSettings, problems: Problems) -> None:
    """Check the options of the loss's terms against what the table says of each term."""
    model, active = type(settings), active_terms(settings)
    for term in TERMS:
        # A weight that is on by default does not ask for anything.
        weight = getattr(settings, term.weight)
        off = model.model_fields[term.weight].default in (0, (0.0,))
        chosen = off and (any(weight) if isinstance(weight, tuple) else weight)
        if chosen and term.requires and not getattr(settings, term.requires):
            problems.add(f"requires a {flag_of(model, term.requires)}", where=flag_of(model, term.weight))
    if all(row.term.regularizes for row in active):
        problems.add("nothing to train on: no contrastive term and no teacher", where="--contrastive-weight")
    if settings.micro_batch_size and any(row.term.compares_images for row in active):
        problems.add(
            "images are compared within a forward pass; it cannot be split into micro-batches",
            where="--micro-batch-size",
            hint="leave it at 0; to save memory use --gradient-cache, which gives the same gradient as the full batch",
        )
    if settings.train_text and not any(row.term.trains_text for row in active):
        problems.add("no term trains the text tower: no contrastive term and no replay", where="--train-text")


def _check_trainable(settings: RemediationSettings, problems: Problems) -> None:
    try:
        trainable = settings.trainable_parameters
    except ValueError as error:
        problems.add(str(error), where="--trainable")
        return
    if trainable.lora_rank and settings.train_text:
        problems.add("LoRA trains only the image tower", where="--train-text")
    if not trainable.lora_rank:
        why = f"has no effect with --trainable {settings.trainable}"
        refuse_changed(settings, ("lora_rank",), problems, why)


def _check_trade_off(settings: RemediationSettings, problems: Problems) -> None:
    if not settings.interpolate or not all(0 <= share <= 1 for share in settings.interpolate):
        problems.add("interpolation coefficients must be between 0 and 1", where="--interpolate")
    elif len(settings.interpolate) > 1 and not settings.measures:
        problems.add(
            "a trade-off needs images or pairs that are not trained on",
            where="--interpolate",
            hint="give --held-out, --held-out-share or --off-domain",
        )
    if settings.held_out and settings.held_out_share:
        problems.add(
            "cannot be combined with --held-out", where="--held-out-share", hint="use one of the two"
        )


def ineffective_options(settings: RemediationSettings, layers: int) -> Iterator[str]:
    """Warnings: what would be trained or was asked for without any effect.

    Args:
        settings: of the run; :func:`conflicts` found none.
        layers: number of layers of the image tower.
    """
    layer, trainable = settings.feature_layer, settings.trainable_parameters
    read_layer = layer if layer >= 0 else layers + 1 + layer
    first_trained = layers - trainable.last_blocks
    if trainable.last_blocks and first_trained >= read_layer:
        yield (
            f"the trained blocks ({first_trained} and up) come after hidden state {read_layer}, which the "
            "multimodal model reads: Rank_e will change, the multimodal model will not; train more blocks "
            f"(--trainable last-{layers - read_layer + 1}), or set --feature-layer to the layer it reads"
        )
    if trainable.last_blocks > layers:
        yield f"--trainable {settings.trainable}: the image tower has {layers} blocks; all of them are trained"
    if settings.replay and not settings.replay_weight:
        yield "--replay has no effect with --replay-weight 0"
    replayed = settings.replay_per_image if settings.replays else 0
    images = (settings.micro_batch_size or settings.batch_size) * (1 + replayed)
    if settings.gradient_cache >= images:
        yield (
            f"--gradient-cache {settings.gradient_cache} has no effect: a forward pass has {images} images"
        )
    if not settings.measures:
        yield ("neither gain nor cost is measured; give --held-out or --held-out-share, and --off-domain")
    if settings.saved_share == 0:
        yield "the saved encoder is the original one: its share of the tuned weights is 0"
