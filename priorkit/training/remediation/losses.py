"""Losses of encoder remediation, each a pure function of features.

All features are L2-normalized before they are compared, all distances are *summed* over width and all
losses summed over the images of the batch, so that a weight means the same at any width. CLIP-KD (Yang
et al. 2024) averages over width instead: its weight of 2000 at 512 dimensions is 3.9 here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from priorkit.core.process.runtime import rank
from priorkit.models.vision.encoder import l2_normalize
from priorkit.training.objectives.contrastive_losses import all_gather, contrastive_loss, similarity_logits


def name_cross_entropy(images: Tensor, names: Tensor, entity: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of each image over all names (FLYP's objective with a zero-shot head, Goyal et al. 2023).

    Unlike a contrastive loss within the batch it has no false negatives when names repeat, and every name is a
    negative at every step.

    Args:
        images: L2-normalized ``[batch, dim]``.
        names: L2-normalized ``[names, dim]``.
        entity: int64 ``[batch]``, rows of ``names``.
        scale: the inverse temperature.
    """
    return nn.functional.cross_entropy(similarity_logits(images, names, scale), entity, reduction="sum")


def info_nce(images: Tensor, names: Tensor, entity: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions within the batch of all processes; images of one entity are positives
    of its name together (Khosla et al. 2020, L_out).

    Args:
        images: L2-normalized ``[batch, dim]``.
        names: L2-normalized ``[names, dim]``.
        entity: int64 ``[batch]``, rows of ``names``.
        scale: the inverse temperature.
    """
    return contrastive_loss(images, names[entity], scale, entity)


def name_sigmoid_loss(images: Tensor, names: Tensor, entity: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Sigmoid loss for every pair of image and name (Zhai et al. 2023, equation 1, over all names).

    Args:
        images: L2-normalized ``[batch, dim]``.
        names: L2-normalized ``[names, dim]``.
        entity: int64 ``[batch]``, rows of ``names``.
        scale: the inverse temperature.
        bias: added to every logit.
    """
    logits = similarity_logits(images, names, scale) + bias.float()
    sign = torch.full_like(logits, -1.0).scatter_(1, entity[:, None], 1.0)
    return -nn.functional.logsigmoid(sign * logits).sum()


def feature_distillation_loss(mapped: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the student's mapped features to the teacher's, summed over the batch.

    Args:
        mapped: ``[batch, teacher width]``, not normalized.
        teacher: L2-normalized ``[batch, teacher width]``.
    """
    return (l2_normalize(mapped) - teacher).square().sum()


def logit_distillation_loss(images: Tensor, names: Tensor, scale: Tensor, teacher: Tensor) -> Tensor:
    """Divergence of the student's distribution over names from a teacher's, summed over the batch.

    ``sum_i KL(softmax(teacher_i) || softmax(student_i))``: cross-entropy with the teacher's distribution as target,
    less its entropy, so that it is 0 where they agree (Hinton et al. 2015, at temperature 1).

    Args:
        images: L2-normalized ``[batch, dim]``.
        names: L2-normalized ``[names, dim]``.
        scale: the student's inverse temperature.
        teacher: the teacher's logits, fp32 ``[batch, names]``.
    """
    student = similarity_logits(images, names, scale).log_softmax(dim=-1)
    return nn.functional.kl_div(student, teacher.log_softmax(dim=-1), reduction="sum", log_target=True)


def relational_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of the student's similarities between the images of the batch from the teacher's.

    ``sum_i KL(softmax_j(cos_teacher_ij / T) || softmax_j(cos_student_ij / T))`` over ``j != i`` in the
    batch of all processes. Only cosines are compared, so widths may differ and no projection is needed
    (affinity mimicking, Wu et al. 2023, TinyCLIP, within the images).

    Args:
        student: L2-normalized ``[batch, student width]``, this process's.
        teacher: L2-normalized ``[batch, teacher width]``, this process's.
        temperature: ``T``; lower values emphasize the nearest images.

    Returns:
        Scalar, summed over this process's images; 0 where there are fewer than three images to compare.
    """
    inverse = torch.full((), 1.0 / temperature, device=student.device)
    student_logits = similarity_logits(student, all_gather(student), inverse)
    teacher_logits = similarity_logits(teacher, all_gather(teacher), inverse)
    rows, columns = student_logits.shape
    if columns < 3:
        return student_logits.sum() * 0.0
    # This process's images come after those of the processes before it.
    self_column = torch.arange(rows, device=student_logits.device) + rank() * rows
    others = torch.arange(columns - 1, device=student_logits.device)[None, :]
    others = others + (others >= self_column[:, None])
    student_others, teacher_others = (logits.gather(1, others) for logits in (student_logits, teacher_logits))
    return nn.functional.kl_div(
        student_others.log_softmax(dim=-1),
        teacher_others.log_softmax(dim=-1),
        reduction="sum",
        log_target=True,
    )


def keep_loss(student: Tensor, original: Tensor) -> Tensor:
    """Squared distance of L2-normalized tokens to those of the original encoder.

    Args:
        student, original: ``[batch, tokens, width]`` or ``[batch, width]``.

    Returns:
        fp32 ``[batch]``: summed over width, averaged over tokens.
    """
    distance = (l2_normalize(student) - l2_normalize(original)).square().sum(dim=-1)
    return distance.mean(dim=-1) if distance.ndim == 2 else distance
