"""Whether features separate entities, and whether what one representation separates survives in the next.

The probe is the nearest class centroid of held-out images (:mod:`priorkit.scoring.representations.centroids`): it has
no parameters to tune, works from two images per entity, and compares representations of any width.
"""

from __future__ import annotations

# torch is only partly typed.
# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from priorkit.core.errors import InputError
from priorkit.scoring.representations.centroids import centroid_ranks
from priorkit.scoring.representations.neighbors import nearest_neighbors, neighbor_overlap
from priorkit.scoring.representations.ranks import true_ranks

Floats = NDArray[np.float64]


def centered(features: Tensor) -> Tensor:
    """L2-normalized features minus their mean, fp32 ``[items, width]``.

    Features of transformers share a large common direction, which would make all cosines alike. Rows that equal the
    mean, as all do where there is one item or all are the same, become a unit vector that is the same for all.

    Args:
        features: ``[items, width]``.
    """
    values = features.double()
    values = values - values.mean(0)
    norms = values.norm(dim=1, keepdim=True)
    scale = features.double().norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    flat = norms <= 1e-7 * scale
    values = torch.where(flat, torch.ones_like(values), values)
    return torch.nn.functional.normalize(values, dim=1).float()


def separability(features: Tensor, group: Sequence[int], fold: Tensor) -> Floats:
    """Reciprocal rank of each image's own centroid among all, from images of other folds: [images] float64.

    1 where the own centroid is the nearest; NaN for the only image of an entity. The mean over an entity's images is
    its separability, the share of ones is the accuracy of the probe.

    Args:
        features: ``[images, width]``, as they are; they are centered here.
        group: the entity of each image.
        fold: ``[images]`` int64, from :func:`priorkit.scoring.representations.centroids.assign_folds`.
    """
    ranks = centroid_ranks(centered(features), torch.tensor(list(group)), fold)
    return 1 / ranks.numpy()


def name_retrieval(features: Tensor, names: Tensor, group: Sequence[int]) -> Floats:
    """Reciprocal rank of the own name's embedding among all names' by cosine to the image's features: [images].

    Both sides are centered, as image tokens and embeddings each have a direction that all share.

    Args:
        features: ``[images, width]`` mean of an image's projected tokens.
        names: ``[entities, width]`` mean embedding of a name's tokens.
        group: the entity of each image.
    """
    ranks = true_ranks(centered(features), centered(names), torch.tensor(list(group)))
    return 1 / ranks.numpy()


def overlap_across(before: Tensor, after: Tensor, sizes: Sequence[int]) -> dict[int, Floats]:
    """Neighbor overlap of two representations of the same images, by number of neighbors.

        overlap_k(image) = |N_k(before) ∩ N_k(after)| / k

    with N_k the k other images that are nearest by cosine. 1 where a projector keeps all neighborhoods; k / (images - 1)
    is expected of unrelated representations. Sizes that are not smaller than the number of images are left out.

    Args:
        before: ``[images, width]``.
        after: ``[images, other width]``.
        sizes: values of k.

    Raises:
        InputError: the representations are not of the same images.
    """
    if len(before) != len(after):
        raise InputError(f"{len(before)} images before and {len(after)} after")
    possible = [k for k in sizes if 1 <= k < len(before)]
    if not possible:
        return {}
    most = max(possible)
    first = nearest_neighbors(centered(before), most)
    second = nearest_neighbors(centered(after), most)
    return {k: neighbor_overlap(first[:, :k], second[:, :k]).numpy() for k in possible}
