"""The terms of the remediation loss: one table that objective, settings checks and metrics derive from.

    L = c L_con + sum_m (w_m L_KD,m + p_m L_patch,m + q_m L_logit,m + r L_rel,m)
        + lambda L_keep + lambda_c L_class + lambda_f L_pooled + rho L_replay

- ``L_con`` aligns an image with its entity's name, in one of three forms (``--contrastive``).
- ``L_KD,m`` is the distance of the student's feature, mapped by a trained projection, to teacher *m*'s.
- ``L_patch,m`` is the same of patch tokens, averaged over them, teacher *m*'s resampled to the student's grid.
- ``L_logit,m`` is the divergence of the student's distribution over names from teacher *m*'s.
- ``L_rel,m`` compares the similarities between the batch's images as teacher *m* and the student have them;
  it needs no projection.
- ``L_keep``, ``L_class`` and ``L_pooled`` are distances to the original encoder, over entity images and replayed
  ones: of the patch tokens of one or several layers, averaged over tokens and layers, of the class token there, and
  of the pooled feature. LLaVA reads the patches of an earlier layer than the contrastive loss does, so what the
  multimodal model reads can be kept without holding what ``L_con`` must move.
- ``L_replay`` is CLIP's loss on general image-text pairs.

A further term is a function in :mod:`priorkit.training.remediation.losses`, an option for its weight in
:class:`priorkit.training.remediation.settings.TermSettings`, and a row of :data:`TERMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from priorkit.training.objectives.contrastive_losses import contrastive_loss
from priorkit.training.remediation import losses
from priorkit.training.remediation.settings import TermSettings

KEPT = {"patches": "keep", "class": "keep_class", "pooled": "keep_pooled"}
"""Distances to the original encoder, with the terms that need them."""


@dataclass(frozen=True)
class TermInputs:
    """What the terms are computed from: the features of one micro-batch.

    Attributes:
        images: the student's features of the entity images, L2-normalized fp32 ``[batch, dim]``.
        entity: int64 ``[batch]``, rows of ``names``.
        names: text features of all names, L2-normalized fp32 ``[names, dim]``.
        scale: the inverse temperature of the encoder.
        bias: trained scalar that the sigmoid form adds to every logit; None for the other forms.
        original_names: ``names`` by the original text tower; None where the text tower is frozen.
        distances: of all images (entity images, then replayed ones) to the original encoder, fp32
            ``[batch + replayed]`` by :data:`KEPT`; those that a term needs.
        replay_images, replay_texts: L2-normalized features ``[replayed, dim]`` of the replayed pairs; None
            without replay.
        replay_keys: int64 ``[replayed]``, equal for equal texts.
        teacher: L2-normalized fp32 ``[batch, teacher width]``: features of the teacher that the term is
            computed for; None in terms that need none.
        projection: maps the student's features to the teacher's width.
        patches: the student's patch tokens ``[batch, patches, width]``; None where no term needs them.
        teacher_patches: the teacher's on the same grid, ``[batch, patches, teacher width]``.
        patch_projection: maps patch tokens to the teacher's width.
        teacher_logits: fp32 ``[batch, names]``, cosines with the names' features by the teacher's text tower, times
            its inverse temperature.
    """

    images: Tensor
    entity: Tensor
    names: Tensor
    scale: Tensor
    bias: Tensor | None = None
    original_names: Tensor | None = None
    distances: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    replay_images: Tensor | None = None
    replay_texts: Tensor | None = None
    replay_keys: Tensor | None = None
    teacher: Tensor | None = None
    projection: nn.Module | None = None
    patches: Tensor | None = None
    teacher_patches: Tensor | None = None
    patch_projection: nn.Module | None = None
    teacher_logits: Tensor | None = None

    def with_replay(self, images: Tensor, texts: Tensor, keys: Tensor) -> TermInputs:
        """The inputs with the features of the replayed pairs."""
        return replace(self, replay_images=images, replay_texts=texts, replay_keys=keys)

    def for_teacher(
        self,
        teacher: Tensor,
        projection: nn.Module,
        patches: Tensor | None = None,
        patch_projection: nn.Module | None = None,
        logits: Tensor | None = None,
    ) -> TermInputs:
        """The inputs of a term that is computed for one teacher."""
        return replace(
            self, teacher=teacher, projection=projection, teacher_patches=patches, patch_projection=patch_projection,
            teacher_logits=logits,
        )  # fmt: skip


@dataclass(frozen=True)
class LossTerm:
    """One term.

    Attributes:
        name: its metric; a term that requires a teacher gets the teacher's number, ``relational_0``.
        weight: the setting that holds its weight, or weights: one for all teachers or one per teacher.
        else_weight: the setting that holds it where that one is not given.
        loss: gives the loss, summed over the batch's entity images.
        form: the value of ``--contrastive`` that selects the term; empty for terms that always apply.
        requires: the setting that the term cannot do without: ``teacher`` (it is then computed for each),
            ``replay``, or empty.
        regularizes: whether the term only keeps what the encoder knows, and cannot train it by itself.
        compares_images: whether images of a batch are compared with one another, so that micro-batches
            would change the loss.
        trains_text: whether it has a gradient for a text tower that is trained.
    """

    name: str
    weight: str
    loss: Callable[[TermInputs, TermSettings], Tensor]
    form: str = ""
    requires: str = ""
    regularizes: bool = False
    compares_images: bool = False
    trains_text: bool = False
    else_weight: str = ""

    def applies(self, settings: TermSettings) -> bool:
        """Whether the settings select the term and give what it requires, whatever its weight."""
        given = not self.requires or bool(getattr(settings, self.requires))
        return given and self.form in ("", settings.contrastive)

    def weights(self, settings: TermSettings) -> tuple[float, ...]:
        """The weight, one per teacher for a term that is computed for each."""
        weight = getattr(settings, self.weight)
        if weight is None:
            weight = getattr(settings, self.else_weight)
        count = len(settings.teacher) if self.requires == "teacher" else 1
        if not isinstance(weight, tuple):
            return (weight,) * count
        weight = weight or (1.0,)
        return weight * count if len(weight) == 1 else weight


@dataclass(frozen=True)
class ActiveTerm:
    """A term whose weight is not 0.

    Attributes:
        name: its metric.
        term: the row of the table.
        weight: its weight.
        teacher: the teacher's number; None for terms without one.
    """

    name: str
    term: LossTerm
    weight: float
    teacher: int | None = None


def active_terms(settings: TermSettings) -> list[ActiveTerm]:
    """The terms that make up the loss: alignment first, then those of each teacher, then regularizers."""
    active: list[ActiveTerm] = []
    for term in TERMS:
        if not term.applies(settings):
            continue
        for number, weight in enumerate(term.weights(settings)):
            if weight and term.requires == "teacher":
                active.append(ActiveTerm(f"{term.name}_{number}", term, weight, number))
            elif weight:
                active.append(ActiveTerm(term.name, term, weight))
    return sorted(
        active,
        key=lambda row: (row.term.regularizes, row.teacher is not None, row.teacher or 0),
    )


def _present(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the term's inputs were not computed")
    return value


def _cross_entropy(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return losses.name_cross_entropy(inputs.images, inputs.names, inputs.entity, inputs.scale)


def _info_nce(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return losses.info_nce(inputs.images, inputs.names, inputs.entity, inputs.scale)


def _sigmoid(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return losses.name_sigmoid_loss(
        inputs.images, inputs.names, inputs.entity, inputs.scale, _present(inputs.bias)
    )


def _feature_distillation(inputs: TermInputs, settings: TermSettings) -> Tensor:
    if inputs.projection is None:
        raise ValueError("the term needs a projection to the teacher's width")
    return losses.feature_distillation_loss(inputs.projection(inputs.images), _present(inputs.teacher))


def _relational(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return losses.relational_loss(inputs.images, _present(inputs.teacher), settings.relational_temperature)


def _patches(inputs: TermInputs, settings: TermSettings) -> Tensor:
    if inputs.patch_projection is None:
        raise ValueError("the term needs a projection to the teacher's width")
    mapped = inputs.patch_projection(_present(inputs.patches))
    return losses.keep_loss(mapped, _present(inputs.teacher_patches)).sum()


def _logits(inputs: TermInputs, settings: TermSettings) -> Tensor:
    return losses.logit_distillation_loss(
        inputs.images, inputs.names, inputs.scale, _present(inputs.teacher_logits)
    )


def _keep_patches(inputs: TermInputs, settings: TermSettings) -> Tensor:
    """Averaged over images, times the entity images."""
    return inputs.distances["patches"].mean() * len(inputs.entity)


def _keep_class(inputs: TermInputs, settings: TermSettings) -> Tensor:
    """Averaged over images, times the entity images."""
    return inputs.distances["class"].mean() * len(inputs.entity)


def _keep_pooled(inputs: TermInputs, settings: TermSettings) -> Tensor:
    """Averaged over images, and over names where the text tower is trained; times the entity images."""
    distance = inputs.distances["pooled"].mean()
    if inputs.original_names is not None:
        distance = distance + losses.keep_loss(inputs.names, inputs.original_names).mean()
    return distance * len(inputs.entity)


def _replay(inputs: TermInputs, settings: TermSettings) -> Tensor:
    images, texts = _present(inputs.replay_images), _present(inputs.replay_texts)
    loss = contrastive_loss(images, texts, inputs.scale, _present(inputs.replay_keys))
    return loss / settings.replay_per_image


TERMS: list[LossTerm] = [
    LossTerm("contrastive", "contrastive_weight", _cross_entropy, form="cross-entropy", trains_text=True),
    LossTerm(
        "contrastive", "contrastive_weight", _info_nce, form="infonce", compares_images=True, trains_text=True
    ),
    LossTerm("contrastive", "contrastive_weight", _sigmoid, form="sigmoid", trains_text=True),
    LossTerm("teacher", "teacher_weight", _feature_distillation, requires="teacher"),
    LossTerm("relational", "relational_weight", _relational, requires="teacher", compares_images=True),
    LossTerm("teacher_patches", "teacher_patch_weight", _patches, requires="teacher"),
    LossTerm("teacher_logits", "teacher_logit_weight", _logits, requires="teacher", trains_text=True),
    LossTerm("keep", "keep_weight", _keep_patches, regularizes=True),
    LossTerm("keep_class", "keep_class_weight", _keep_class, regularizes=True),
    LossTerm("keep_pooled", "keep_pooled_weight", _keep_pooled, regularizes=True, else_weight="keep_weight"),
    LossTerm(
        "replay",
        "replay_weight",
        _replay,
        requires="replay",
        regularizes=True,
        compares_images=True,
        trains_text=True,
    ),
]
"""All terms. The paper's own losses were not published; these are a documented reconstruction."""
