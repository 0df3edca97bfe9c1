"""Every method against a dense float64 oracle written from its definition, on numpy arrays and torch tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from priorkit.core.errors import InputError, UsageError
from priorkit.merging.methods import linear, sparsify
from priorkit.merging.methods.arrays import gram, rank_band

SHAPES = [(7,), (24, 17), (130, 70, 11)]
WEIGHTS, DENSITY = (1.0, 0.4, -0.3), (0.5, 0.3, 0.8)


@pytest.fixture(params=SHAPES, ids=str)
def deltas(request):
    draw = np.random.default_rng(sum(request.param))
    return [draw.standard_normal(request.param).astype(np.float32) * scale for scale in (1.0, 0.7, 2.0)]


def close(found, expected, tolerance=1e-6):
    """Relative distance in the Frobenius norm."""
    distance = np.linalg.norm(np.asarray(found, np.float64) - expected)
    assert distance <= tolerance * max(np.linalg.norm(expected), 1e-12)


def both(deltas, merge):
    """Run on numpy and on torch; the two must agree; return numpy's."""
    found = merge(deltas)
    other = merge([torch.from_numpy(delta) for delta in deltas])
    close(other.numpy(), np.asarray(found, np.float64))
    return found


def wide(deltas):
    return [delta.astype(np.float64) for delta in deltas]


def ranks(delta):
    """Ranks of the magnitudes, ascending, equal ones by position."""
    flat = np.abs(delta.reshape(-1))
    found = np.empty(flat.size, int)
    found[np.argsort(flat, kind="stable")] = np.arange(flat.size)
    return found.reshape(delta.shape)


def elect_and_add(terms, weights, normalize, lambda_):
    elected = np.where(sum(terms) >= 0, 1, -1)
    agree = [(np.sign(term) == elected).astype(float) for term in terms]
    total = sum(term * counted for term, counted in zip(terms, agree, strict=True))
    if normalize:
        divisor = sum(counted * weight for counted, weight in zip(agree, weights, strict=True))
        total = total / np.where(divisor == 0, 1, divisor)
    return lambda_ * total


@pytest.mark.parametrize("normalize", [True, False])
def test_weighted_sums(deltas, normalize):
    total = sum(w * d for w, d in zip(WEIGHTS, wide(deltas), strict=True))
    expected = total / math.fsum(WEIGHTS) if normalize else total
    close(both(deltas, lambda x: linear.linear(x, WEIGHTS, normalize=normalize)), expected)
    scaled = both(deltas, lambda x: linear.task_arithmetic(x, WEIGHTS, normalize=normalize, lambda_=0.3))
    close(scaled, 0.3 * expected)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_keeps_the_angle_and_the_ends(deltas, t):
    a, b = wide(deltas[:2])
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    angle = math.acos(cosine)
    expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    close(both(deltas[:2], lambda x: linear.slerp(x, t=t)), expected)


def test_slerp_is_linear_between_collinear_inputs():
    a = np.arange(1, 9, dtype=np.float32)
    close(linear.slerp([a, 3 * a], t=0.25), 0.75 * a + 0.25 * 3 * a)


def test_slerp_needs_directions():
    a, zero = np.ones(4, np.float32), np.zeros(4, np.float32)
    with pytest.raises(InputError, match="second input is zero"):
        linear.slerp([a, zero], t=0.5)
    assert not linear.slerp([zero, zero], t=0.5).any()


@pytest.mark.parametrize("normalize", [True, False])
def test_ties(deltas, normalize):
    terms = []
    for delta, weight, share in zip(deltas, WEIGHTS, DENSITY, strict=True):
        kept = max(1, int(share * delta.size))
        terms.append(weight * delta.astype(np.float64) * (ranks(delta) >= delta.size - kept))
    expected = elect_and_add(terms, WEIGHTS, normalize, 0.7)
    options = {"normalize": normalize, "rescale": False, "lambda_": 0.7}
    close(both(deltas, lambda x: sparsify.ties(x, WEIGHTS, DENSITY, **options)), expected)


@pytest.mark.parametrize("elect", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_breadcrumbs(deltas, elect, rescale):
    gamma, terms = 0.1, []
    for delta, weight, share in zip(deltas, WEIGHTS, DENSITY, strict=True):
        count, kept = delta.size, int(share * delta.size)
        start = max(0, count - kept - int(gamma * count))
        mask = (ranks(delta) >= start) & (ranks(delta) < start + kept)
        factor = np.abs(delta).sum() / np.abs(delta * mask).sum() if rescale else 1
        terms.append(weight * delta.astype(np.float64) * mask * factor)
    expected = elect_and_add(terms, WEIGHTS, False, 1.0) if elect else sum(terms)
    merge = sparsify.breadcrumbs_ties if elect else sparsify.breadcrumbs
    options = {"normalize": False, "rescale": rescale, "gamma": gamma}
    close(both(deltas, lambda x: merge(x, WEIGHTS, DENSITY, **options)), expected)


@pytest.mark.parametrize("elect", [True, False])
def test_dare_drops_by_the_drawn_numbers_and_rescales(deltas, elect):
    def draws():
        return [np.random.default_rng(index) for index in range(3)]

    terms = []
    for delta, weight, share, draw in zip(deltas, WEIGHTS, DENSITY, draws(), strict=True):
        mask = draw.random(delta.size, dtype=np.float32).reshape(delta.shape) < share
        terms.append(weight * delta.astype(np.float64) * mask / share)
    expected = elect_and_add(terms, WEIGHTS, True, 1.0) if elect else sum(terms) / math.fsum(WEIGHTS)
    merge = sparsify.dare_ties if elect else sparsify.dare_linear
    options = {"normalize": True, "rescale": True}
    close(both(deltas, lambda x: merge(x, WEIGHTS, DENSITY, draws=draws(), **options)), expected)


def test_dare_is_unbiased():
    delta = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    draw = [np.random.default_rng(1)]
    merged = sparsify.dare_linear([delta], [1.0], [0.2], normalize=False, rescale=True, draws=draw)
    assert abs((merged != 0).mean() - 0.2) < 0.005
    assert abs((merged * delta).sum() / (delta**2).sum() - 1) < 0.03


def test_della_keeps_larger_entries_more_often_and_is_unbiased():
    row = np.linspace(0.1, 2.0, 1000, dtype=np.float32)
    delta = np.tile(row, (400, 1))
    draw = [np.random.default_rng(2)]
    merged = sparsify.della_linear(
        [delta], [1.0], [0.5], normalize=False, rescale=True, epsilon=0.3, draws=draw
    )
    kept = (merged != 0).mean(axis=0)
    expected = 0.2 + 0.6 * np.arange(1000) / 999
    assert np.abs(kept - expected).max() < 0.12
    assert np.corrcoef(kept, expected)[0, 1] > 0.98
    assert abs(merged.mean() / delta.mean() - 1) < 0.01


@pytest.mark.parametrize("elect", [True, False])
def test_della(deltas, elect):
    epsilon, density = 0.15, (0.5, 0.3, 0.8)

    def draws():
        return [np.random.default_rng(index) for index in range(3)]

    terms = []
    for delta, weight, share, draw in zip(deltas, WEIGHTS, density, draws(), strict=True):
        matrix = delta.reshape(delta.shape[0], -1) if delta.ndim > 1 else delta.reshape(1, -1)
        order = np.stack([ranks(line) for line in matrix])
        probability = (share - epsilon) + 2 * epsilon * order / (matrix.shape[1] - 1)
        mask = draw.random(delta.size, dtype=np.float32).reshape(matrix.shape) < probability
        terms.append((weight * matrix.astype(np.float64) * mask / probability).reshape(delta.shape))
    expected = elect_and_add(terms, WEIGHTS, True, 1.0) if elect else sum(terms)
    merge = sparsify.della if elect else sparsify.della_linear
    options = {"normalize": elect, "rescale": True, "epsilon": epsilon}
    close(both(deltas, lambda x: merge(x, WEIGHTS, density, draws=draws(), **options)), expected)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_sce(deltas, share):
    inputs = wide(deltas)
    if share < 1:
        variance = np.var(np.stack(inputs), axis=0)
        chosen = int((variance != 0).sum() * share)
        mask = ranks(variance) >= variance.size - chosen
        inputs = [delta * mask for delta in inputs]
    energy = np.array([(delta**2).mean() for delta in inputs])
    weights = energy / energy.sum()
    elected = np.where(sum(inputs) >= 0, 1, -1)
    agree = [np.sign(delta) == elected for delta in inputs]
    top = sum(w * d * a for w, d, a in zip(weights, inputs, agree, strict=True))
    bottom = sum(w * a for w, a in zip(weights, agree, strict=True))
    expected = top / np.maximum(bottom, 1e-6)
    close(both(deltas, lambda x: sparsify.sce(x, select_topk=share)), expected)


def test_model_stock(deltas):
    inputs = wide(deltas)
    cosines = [
        (inputs[a] * inputs[b]).sum() / np.linalg.norm(inputs[a]) / np.linalg.norm(inputs[b])
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    cosine = np.mean(cosines)
    expected = 3 * cosine / (1 + 2 * cosine) * sum(inputs) / 3
    close(both(deltas, linear.model_stock), expected, 2e-6)


def test_karcher_mean_balances_the_pulls_of_its_inputs(deltas):
    merged = both(deltas, lambda x: linear.karcher(x, [1.0, 1.0, 1.0], max_iter=200, tol=1e-9))
    mean = np.asarray(merged, np.float64).reshape(-1)
    sizes = [np.linalg.norm(delta) for delta in wide(deltas)]
    assert np.linalg.norm(mean) == pytest.approx(np.mean(sizes), rel=1e-6)
    mean /= np.linalg.norm(mean)
    pull = np.zeros_like(mean)
    for delta, size in zip(wide(deltas), sizes, strict=True):
        unit = delta.reshape(-1) / size
        angle = math.acos(np.clip(unit @ mean, -1, 1))
        pull += angle / math.sin(angle) * (unit - (unit @ mean) * mean)
    assert np.linalg.norm(pull) < 1e-5


def test_karcher_of_one_input_is_itself(deltas):
    close(linear.karcher(deltas[:1], [2.0]), wide(deltas)[0])


def test_weights_that_sum_to_zero_cannot_be_normalized(deltas):
    with pytest.raises(UsageError, match="sum to 0"):
        linear.linear(deltas[:2], [1.0, -1.0])


def test_inputs_are_not_changed(deltas):
    before = [delta.copy() for delta in deltas]
    for merge in (
        lambda: sparsify.ties(deltas, WEIGHTS, DENSITY, normalize=True, rescale=True),
        lambda: sparsify.sce(deltas, select_topk=0.5),
        lambda: linear.linear(deltas, WEIGHTS),
    ):
        merge()
        assert all(np.array_equal(a, b) for a, b in zip(before, deltas, strict=True))


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 200), elements=st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])),
    st.data(),
)
def test_a_rank_band_holds_exactly_the_requested_ranks_also_with_ties(values, data):
    start = data.draw(st.integers(0, values.size))
    stop = data.draw(st.integers(0, values.size))
    expected = (ranks(values) >= start) & (ranks(values) < stop)
    assert np.array_equal(rank_band(values, start, stop), expected)
    assert np.array_equal(rank_band(torch.from_numpy(values), start, stop).numpy(), expected)


@pytest.mark.parametrize("count", [512, 1024, 3072, 70_000])
def test_a_rank_band_of_many_values(count):
    values = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    start, stop = count // 3, count - count // 100
    expected = (ranks(values) >= start) & (ranks(values) < stop)
    assert np.array_equal(rank_band(values, start, stop), expected)


def test_gram_holds_all_inner_products(deltas):
    stacked = np.stack([delta.reshape(-1) for delta in wide(deltas)])
    np.testing.assert_allclose(gram(deltas), stacked @ stacked.T, rtol=1e-12)
