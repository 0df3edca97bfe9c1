"""Ranks by class centroids, the substitute for Rank_e for encoders without a text tower.

Every image is ranked against centroids of the images of *other* folds, so that it does not contribute to its
entity's centroid. Our own substitute (VisPRE has none): it measures whether the encoder distinguishes
entities, not whether it knows their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from priorkit.scoring.representations.ranks import true_ranks


def assign_folds(names: Sequence[str], groups: Sequence[int], folds: int, seed: int) -> Tensor:
    """Assign each group's images to folds, as evenly as possible, in a seeded random order.

    Args:
        names: a name per image, unique within a group; the assignment depends on it, not on the order of images.
        groups: the group (entity) of each image.
        folds: their number.
        seed: of the order.

    Returns:
        [images] int64, from 0.
    """
    members: dict[int, list[tuple[int, str, int]]] = {}
    for row, (name, group) in enumerate(zip(names, groups, strict=True)):
        members.setdefault(group, []).append((zlib.crc32(f"{seed}\0{name}".encode()), name, row))
    fold = torch.zeros(len(names), dtype=torch.int64)
    for rows in members.values():
        for position, (_, _, row) in enumerate(sorted(rows)):
            fold[row] = position % folds
    return fold


def centroids(features: Tensor, group: Tensor, count: int) -> Tensor:
    """L2-normalized mean of the features of each group; zero for a group without any.

    Args:
        features: [items, width], L2-normalized.
        group: [items] int64.
        count: number of groups.

    Returns:
        fp32 [count, width].
    """
    sums = torch.zeros(count, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, group, features.double())
    return torch.nn.functional.normalize(sums, dim=1).float()


def centroid_ranks(features: Tensor, group: Tensor, fold: Tensor) -> Tensor:
    """Rank of the centroid of each image's group among all centroids, computed without the image's fold.

    The image of a group with a single image cannot be held out: its rank is NaN, and the group's centroid
    stays a candidate.

    Args:
        features: [images, width], L2-normalized.
        group: [images] int64, the entity of each.
        fold: [images] int64.

    Returns:
        [images] float64 on the CPU; 1 is best.
    """
    count = int(group.max()) + 1
    sizes = torch.bincount(group, minlength=count)
    ranks = torch.full((len(features),), torch.nan, dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        held_out = fold == number
        tested = (held_out & (sizes[group] > 1)).nonzero()[:, 0]
        if not len(tested):
            continue
        used = ~held_out | (sizes[group] == 1)
        means = centroids(features[used], group[used], count)
        ranks[tested.cpu()] = true_ranks(features[tested], means, group[tested])
    return ranks
