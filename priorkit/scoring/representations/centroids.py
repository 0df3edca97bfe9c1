"""Rank of the nearest class centroid: what stands for Rank_e where an encoder has no text tower.

Every image is ranked by the centroids of the images of *other* folds, so that it never helps its own
entity. A documented substitute (VisPRE has none): it measures whether the encoder tells entities apart,
not whether it knows their names.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from priorkit.scoring.representations.ranks import true_ranks


def deal_folds(names: Sequence[str], groups: Sequence[int], folds: int, seed: int) -> Tensor:
    """Deal each group's images to folds, as evenly as can be, in an order drawn by the seed.

    Args:
        names: a name per image, unique within a group; the draw depends on it and not on the order.
        groups: the group (entity) of each image.
        folds: their number.
        seed: of the draw.

    Returns:
        [images] int64, from 0.
    """
    members: dict[int, list[tuple[int, str, int]]] = {}
    for row, (name, group) in enumerate(zip(names, groups, strict=True)):
        members.setdefault(group, []).append((zlib.crc32(f"{seed}\0{name}".encode()), name, row))
    dealt = torch.zeros(len(names), dtype=torch.int64)
    for rows in members.values():
        for place, (_, _, row) in enumerate(sorted(rows)):
            dealt[row] = place % folds
    return dealt


def centroids(features: Tensor, group: Tensor, count: int) -> Tensor:
    """Mean of the features of each group, at length one; zero where a group has none.

    Args:
        features: [items, width], L2-normalised.
        group: [items] int64.
        count: number of groups.

    Returns:
        fp32 [count, width].
    """
    sums = torch.zeros(count, features.shape[1], dtype=torch.float64, device=features.device)
    sums.index_add_(0, group, features.double())
    return torch.nn.functional.normalize(sums, dim=1).float()


def centroid_ranks(features: Tensor, group: Tensor, fold: Tensor) -> Tensor:
    """Rank of each image's own centroid among all groups', none of them computed with its fold.

    A group with a single image cannot be held out: its image gets NaN, and its centroid stays a candidate.

    Args:
        features: [images, width], L2-normalised.
        group: [images] int64, the entity of each.
        fold: [images] int64.

    Returns:
        [images] float64 on the CPU; 1 is best.
    """
    count = int(group.max()) + 1
    sizes = torch.bincount(group, minlength=count)
    ranks = torch.full((len(features),), torch.nan, dtype=torch.float64)
    for number in range(int(fold.max()) + 1):
        held = fold == number
        tested = (held & (sizes[group] > 1)).nonzero()[:, 0]
        if not len(tested):
            continue
        used = ~held | (sizes[group] == 1)
        heads = centroids(features[used], group[used], count)
        ranks[tested.cpu()] = true_ranks(features[tested], heads, group[tested])
    return ranks
