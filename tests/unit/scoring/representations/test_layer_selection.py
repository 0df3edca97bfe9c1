"""Choosing among layers: the null and the intervals equal a plain loop, cover, and reject as often as they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorkit.scoring.representations.layer_selection import (
    layer_overlaps,
    permuted_maxima,
    resampled_maxima,
    selected_maximum,
)
from priorkit.scoring.representations.neighbors import nearest_neighbors, neighbor_overlap

K = 5


def layers(count: int, items: int, seed: int, shared: torch.Tensor | None = None, noise: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        values = torch.randn(items, 8, generator=generator) * noise
        found.append(nearest_neighbors(values if shared is None else values + shared, K))
    return found


def test_overlaps_are_those_of_each_pair_of_layers() -> None:
    first, second = layers(3, 40, 0), layers(2, 40, 1)
    overlaps = layer_overlaps(first, second)
    assert overlaps.shape == (40, 3, 2)
    for row, one in enumerate(first):
        for column, other in enumerate(second):
            expected = neighbor_overlap(one, other)
            assert torch.equal(overlaps[:, row, column].double() / K, expected)


def test_resampled_maxima_choose_their_own_layers() -> None:
    overlaps = layer_overlaps(layers(3, 30, 2), layers(4, 30, 3))
    found = resampled_maxima(overlaps, K, seed=7, resamples=50)
    generator = np.random.Generator(np.random.PCG64(7))
    draws = generator.integers(0, 30, size=(50, 30))
    values = overlaps.double().numpy() / K
    expected = [values[draw].mean(0).max() for draw in draws]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_null_is_the_maximum_over_layers_of_matchings_at_random() -> None:
    first, others = layers(3, 25, 4), [layers(2, 25, 5), layers(4, 25, 6)]
    found = permuted_maxima(first, others, seed=3, permutations=6)
    generator = np.random.Generator(np.random.PCG64(3))
    for row in found:
        order = generator.permutation(25)
        for value, other in zip(row, others, strict=True):
            best = 0.0
            for one in first:
                # Item i is renamed order[i], in the rows and in the lists of neighbours.
                renamed = torch.empty_like(one)
                renamed[torch.from_numpy(order)] = torch.from_numpy(order)[one]
                best = max(best, *(float(neighbor_overlap(renamed, each).mean()) for each in other))
            assert value == pytest.approx(best, abs=1e-12)


def judged(seed: int, shared: float) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(1000 + seed)
    base = torch.randn(60, 8, generator=generator) * shared
    first, second = layers(4, 60, 2 * seed, base), layers(4, 60, 2 * seed + 1, base)
    overlaps = layer_overlaps(first, second)
    value = float((overlaps.double().mean(0) / K).max())
    result = selected_maximum(
        value,
        resampled_maxima(overlaps, K, seed=seed, resamples=100),
        permuted_maxima(first, [second], seed=seed, permutations=39)[:, 0],
    )
    return result.p_value, result.selection_bias


def test_unrelated_representations_are_rejected_as_often_as_the_level_says() -> None:
    """60 independent pairs of models: p <= 0.05 in 3 of them on average, within the binomial's bounds."""
    results = [judged(seed, 0.0) for seed in range(60)]
    assert sum(p <= 0.05 for p, _ in results) <= 8
    assert 0.3 < np.mean([p for p, _ in results]) < 0.7
    assert np.mean([bias for _, bias in results]) > 0, "choosing among layers raises the maximum"


def test_related_representations_are_found() -> None:
    assert all(judged(seed, 1.5)[0] <= 0.05 for seed in range(5))


def test_the_basic_interval_subtracts_the_bias() -> None:
    resampled, permuted = np.linspace(0.52, 0.56, 101), np.linspace(0.1, 0.2, 99)
    found = selected_maximum(0.5, resampled, permuted)
    assert found.interval.value == 0.5
    assert (found.interval.low, found.interval.high) == (
        pytest.approx(1 - 0.559),
        pytest.approx(1 - 0.521),
    )
    assert found.selection_bias == pytest.approx(0.04)
    assert (found.p_value, found.null_mean) == (0.01, pytest.approx(0.15))
