"""Ranks by centroids of held-out folds against plain loops."""

from __future__ import annotations

import numpy as np
import torch

from priorkit.scoring.representations.centroids import assign_folds, centroid_ranks


def data(seed: int = 0) -> tuple[torch.Tensor, list[int], list[str]]:
    generator = torch.Generator().manual_seed(seed)
    groups = [0] * 7 + [1] * 2 + [2] + [3] * 5
    features = torch.randn(len(groups), 6, generator=generator) + torch.tensor(groups)[:, None]
    names = [f"{group}-{number}.png" for number, group in enumerate(groups)]
    return torch.nn.functional.normalize(features, dim=1), groups, names


def test_ranks_equal_plain_loops() -> None:
    features, groups, names = data()
    folds = assign_folds(names, groups, 3, seed=1)
    found = centroid_ranks(features, torch.tensor(groups), folds)
    values, group = features.double().numpy(), np.array(groups)
    for row in range(len(groups)):
        if groups[row] == 2:
            assert found[row].isnan()
            continue
        cosines = []
        for other in range(4):
            used = (group == other) & ((folds.numpy() != folds[row].item()) | (other == 2))
            mean = values[used].mean(0)
            cosines.append(values[row] @ mean / np.linalg.norm(mean))
        assert found[row] == 1 + sum(value > cosines[groups[row]] for value in cosines)


def test_folds_are_even_and_do_not_depend_on_the_order() -> None:
    _, groups, names = data()
    folds = assign_folds(names, groups, 3, seed=1)
    assert sorted(folds[:7].tolist()) == [0, 0, 0, 1, 1, 2, 2]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(3)).tolist()
    shuffled = assign_folds([names[row] for row in order], [groups[row] for row in order], 3, seed=1)
    assert shuffled.tolist() == folds[order].tolist()
    assert assign_folds(names, groups, 3, seed=2).tolist() != folds.tolist()
