"""Centroid probes, retrieval of names and neighbor overlap against float64 loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priorkit.core.errors import InputError
from priorkit.scoring.diagnosis.separability import centered, name_retrieval, overlap_across, separability

GROUP = [0, 0, 0, 1, 1, 1, 2, 2, 3]
FOLD = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 0])


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def reference(features: np.ndarray) -> list[float]:
    """The reciprocal rank of each image's own centroid, by definition and in float64."""
    values, group, fold = unit(features - features.mean(0)), np.array(GROUP), FOLD.numpy()
    found: list[float] = []
    for image in range(len(values)):
        if (group == group[image]).sum() == 1:
            found.append(np.nan)
            continue
        cosines = []
        for entity in range(4):
            members = (group == entity) & ((fold != fold[image]) | ((group == entity).sum() == 1))
            cosines.append(unit(values[members].mean(0)) @ values[image])
        own = cosines[group[image]]
        found.append(1 / (1 + sum(cosine > own for cosine in cosines)))
    return found


@given(st.integers(0, 200))
def test_separability_is_the_reciprocal_rank_of_the_own_centroid(seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(9, 5)) + 3
    computed = separability(torch.from_numpy(features), GROUP, FOLD)
    np.testing.assert_allclose(computed, reference(features))


def test_clusters_are_separated_and_a_common_direction_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    means = generator.normal(size=(4, 8))[GROUP]
    features = torch.from_numpy(means + 0.01 * generator.normal(size=means.shape))
    for shift in (0.0, 1000.0):
        values = separability(features + shift, GROUP, FOLD)
        assert values[:8].tolist() == [1] * 8
        assert np.isnan(values[8])


def test_equal_features_separate_nothing() -> None:
    values = separability(torch.ones(9, 4), GROUP, FOLD)
    # Four equal cosines share their mean rank, 2.5.
    assert values[:8].tolist() == [0.4] * 8
    assert centered(torch.ones(3, 4)).isfinite().all()


def test_names_are_retrieved_by_centered_cosine() -> None:
    generator = np.random.default_rng(1)
    images, names = generator.normal(size=(9, 6)) + 5, generator.normal(size=(4, 6)) - 7
    cosines = unit(images - images.mean(0)) @ unit(names - names.mean(0)).T
    own = cosines[np.arange(9), GROUP]
    expected = 1 / (1 + (cosines > own[:, None]).sum(1))
    computed = name_retrieval(torch.from_numpy(images), torch.from_numpy(names), GROUP)
    np.testing.assert_allclose(computed, expected)


def test_overlap_equals_sets_of_neighbors() -> None:
    generator = np.random.default_rng(2)
    before, after = generator.normal(size=(30, 6)), generator.normal(size=(30, 4))

    def neighbors(values: np.ndarray, k: int) -> list[set[int]]:
        values = unit(values - values.mean(0))
        cosines = values @ values.T
        np.fill_diagonal(cosines, -np.inf)
        return [set(np.argsort(-row)[:k]) for row in cosines]

    computed = overlap_across(torch.from_numpy(before), torch.from_numpy(after), (3, 10, 29, 50))
    assert list(computed) == [3, 10, 29]
    for k, values in computed.items():
        pairs = zip(neighbors(before, k), neighbors(after, k), strict=True)
        np.testing.assert_allclose(values, [len(a & b) / k for a, b in pairs])
    assert (computed[29] == 1).all()


def test_overlap_is_whole_under_a_rotation_and_refuses_other_images() -> None:
    features = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rotation = torch.linalg.qr(
        torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    )[0]
    assert (overlap_across(features, 3 * features @ rotation, (5,))[5] == 1).all()
    assert overlap_across(features[:1], features[:1], (5,)) == {}
    with pytest.raises(InputError, match="20 images before and 2 after"):
        overlap_across(features, features[:2], (5,))
