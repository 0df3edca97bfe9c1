"""From settings and data to what is trained: student, original, teachers' features, objective."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.core.process.runtime import Runtime
from priorkit.core.work import Work
from priorkit.data.images.pixels import Pixels
from priorkit.models.kernels.attention import choose_attention
from priorkit.models.vision.encoder import Encoder, zero_shot_head
from priorkit.models.vision.equal_names import warn_of_equal_names
from priorkit.models.vision.loading import load_encoder
from priorkit.training.objectives.captions import Captions
from priorkit.training.remediation.data import RemediationData
from priorkit.training.remediation.objective import (
    NameFeatures,
    RemediationObjective,
    Replay,
    TrainableNameHead,
    inverse_temperature,
)
from priorkit.training.remediation.settings import DistillEncoderSettings
from priorkit.training.remediation.teachers import PatchTokens, TeacherTargets, teacher_features
from priorkit.training.remediation.terms import TERMS
from priorkit.training.remediation.views import ViewSchedule


@dataclass(frozen=True)
class Encoders:
    """The encoder that is trained, and a frozen copy of it as it was."""

    student: Encoder
    original: Encoder


def load_encoders(settings: DistillEncoderSettings, work: Work[Any], runtime: Runtime) -> Encoders:
    """Load the encoder onto the device.

    Raises:
        InputError: the encoder does not resize images to a fixed size.
    """
    student = load_encoder(work.inputs.one("encoder").path)
    if getattr(student.image_processor, "max_num_patches", 0):
        raise InputError(
            "this encoder keeps the aspect ratio of images; remediation needs one that resizes them to a fixed size",
            where=settings.encoder,
        )
    student.model.to(runtime.device)
    choose_attention(student.model, runtime.device.type, runtime.precision)
    return Encoders(
        student, replace(student, model=copy.deepcopy(student.model).eval().requires_grad_(False))
    )


def build_objective(
    settings: DistillEncoderSettings,
    work: Work[Any],
    data: RemediationData,
    encoders: Encoders,
    runtime: Runtime,
) -> RemediationObjective:
    """Compute the features of names and teachers and put the objective together."""
    student = encoders.student
    if settings.keep_class_weight and not student.shape.prefix:
        raise InputError(
            "has no class token to keep", where=settings.encoder, hint="leave --keep-class-weight out"
        )
    fixed_views = settings.teacher_views if settings.augments else 1
    views = ViewSchedule(
        Pixels(data.entities.images, student.prepare),
        settings,
        settings.seed,
        fixed_views if settings.teacher else 0,
    )
    with runtime.autocast():
        teachers = _teachers(settings, work, data, views, student, runtime)
    return RemediationObjective(
        student,
        views,
        data.entities.entity_of,
        _name_features(settings, student, data.names),
        settings,
        teachers,
        _replay(settings, data, student),
        encoders.original,
    )


def _teachers(
    settings: DistillEncoderSettings,
    work: Work[Any],
    data: RemediationData,
    views: ViewSchedule,
    student: Encoder,
    runtime: Runtime,
) -> list[TeacherTargets]:
    """What the teachers say of the student's views, each teacher at its own resolution."""
    images, refs = work.inputs.one("images"), data.entities.images
    weights = {term.weight: term.weights(settings) for term in TERMS if term.requires == "teacher"}
    patch_weights, logit_weights = weights["teacher_patch_weight"], weights["teacher_logit_weight"]
    found: list[TeacherTargets] = []
    for number, source in enumerate(work.inputs.many("teacher")):
        with_names = bool(logit_weights[number])
        teacher = load_encoder(source.path, text=with_names)
        teacher.model.to(runtime.device)
        key: dict[str, Any] = {
            "teacher": source.stamp() or source.digest(),
            "images": images.quick_key(),
            "layout": repr(settings.entity_layout(work.inputs)),
            "used": [ref.name for ref in refs],
            "views": [views.fixed, settings.seed, list(views.pixels.size)] if settings.augments else [],
            "augmentation": views.augmentation_values(),
            "precision": runtime.precision,
            "device": runtime.device.type,
        }
        pixels = Pixels(refs, teacher.prepare)
        title = f"teacher {number + 1}"
        features = torch.stack(teacher_features(teacher, pixels, views, title, key, settings.workers))
        patches: list[Tensor] = []
        if patch_weights[number]:
            wanted = PatchTokens(settings.teacher_layer, student.shape.patches[settings.feature_layer])
            patches = teacher_features(
                teacher, pixels, views, f"{title}, patches", key, settings.workers, wanted
            )
        names = zero_shot_head(teacher, data.names, settings.template) if with_names else None
        scale = float(inverse_temperature(teacher.model)) if with_names else 1.0
        found.append(TeacherTargets(features, patches, names, scale))
    return found


def _name_features(
    settings: DistillEncoderSettings, encoder: Encoder, names: tuple[str, ...]
) -> NameFeatures:
    """The names' text features: computed once, or again at every step where the text tower is trained."""
    warn_of_equal_names(encoder, names, settings.template)
    original = zero_shot_head(encoder, names, settings.template).to(encoder.device)
    if not settings.train_text:
        return NameFeatures(original)
    head = TrainableNameHead(encoder, names, settings.template, settings.gradient_cache)
    return NameFeatures(original, head)


def _replay(settings: DistillEncoderSettings, data: RemediationData, encoder: Encoder) -> Replay | None:
    if data.replay is None:
        return None
    views = ViewSchedule(Pixels(data.replay.images, encoder.prepare), settings, settings.seed + 1, 0)
    return Replay(views, Captions(encoder, data.replay.texts))
