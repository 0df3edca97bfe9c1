"""Merging by selection: which entries of the inputs' deltas count, and which signs.

Deltas are ``model - base``. Names and defaults are those of mergekit 0.1.5; where its definition and the
paper's differ, the docstring says which one is here. Arrays are numpy's or torch's, of any shape, float32 or
float64, and are not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from priorkit.merging.methods.arrays import (
    Array,
    absolute_sum,
    as_array_of,
    chunks,
    inner,
    library,
    rank_band,
    scalar,
)
from priorkit.merging.methods.linear import weighted


def consensus(
    deltas: Sequence[Array],
    masks: Sequence[Array | None],
    weights: Sequence[float],
    *,
    elect: bool,
    normalize: bool,
    lambda_: float,
) -> Array:
    """Add up masked, weighted deltas; with ``elect`` only entries whose sign agrees with that of their sum.

    Args:
        deltas: the deltas.
        masks: flat factors per entry, one array per delta; None keeps all.
        weights: one per delta; they act before the election.
        elect: TIES's election: ``+`` where the weighted sum is >= 0; a zero never counts.
        normalize: divide by the weights of the entries counted (1 where they sum to 0).
        lambda_: scales the sum.
    """
    merged = library(deltas[0]).empty_like(deltas[0])
    out, inputs = merged.reshape(-1), [delta.reshape(-1) for delta in deltas]
    scales = [] if elect else weighted(weights, normalize=normalize, lambda_=lambda_)
    for part in chunks(out):
        terms = [
            delta[part] if mask is None else delta[part] * mask[part]
            for delta, mask in zip(inputs, masks, strict=True)
        ]
        if not elect:
            out[part] = sum(term * scale for term, scale in zip(terms, scales, strict=True))
            continue
        if len(terms) == 1 and weights[0] > 0:
            # A single entry always agrees with itself, and normalizing cancels its weight.
            out[part] = terms[0] * (lambda_ if normalize else lambda_ * weights[0])
            continue
        terms = [term * weight for term, weight in zip(terms, weights, strict=True)]
        agree = _elected(terms)
        total = sum(term * counted for term, counted in zip(terms, agree, strict=True))
        if normalize:
            divisor = sum(
                scalar(out, weight) * counted for weight, counted in zip(weights, agree, strict=True)
            )
            total = total / (divisor + (divisor == 0))
        out[part] = total * lambda_
    return merged


def _elected(terms: Sequence[Array]) -> list[Array]:
    """For each input, where its sign is that of the sum (``+`` for a sum of 0); zeros never are."""
    positive: Array = sum(terms) >= 0
    return [(positive & (term > 0)) | (~positive & (term < 0)) for term in terms]


def _rescaled(delta: Array, mask: Array, rescale: bool) -> Array:
    """A mask that, with ``rescale``, also restores the sum of magnitudes (mergekit's ``rescale``)."""
    if not rescale:
        return mask
    before, after = absolute_sum(delta), absolute_sum(delta.reshape(-1) * mask)
    return mask * (before / after) if before >= 1e-7 and after >= 1e-7 else mask


def keep_largest(delta: Array, density: float) -> Array | None:
    """A mask of the ``max(1, int(density * n))`` entries of largest magnitude (TIES's trimming)."""
    count = math.prod(delta.shape)
    if density >= 1 or count == 0:
        return None
    count_kept = max(1, int(density * count)) if density > 0 else 0
    return rank_band(delta, count - count_kept, count)


def keep_band(delta: Array, density: float, gamma: float) -> Array | None:
    """A mask without the ``gamma`` share of largest magnitudes and, below them, of the wanted density.

    Model Breadcrumbs (Davari & Belilovsky 2023, arXiv 2312.06795), parametrised as in mergekit: where
    density and gamma exceed 1 together, fewer of the largest are dropped.
    """
    count = math.prod(delta.shape)
    if density >= 1 or count == 0:
        return None
    count_kept = int(density * count)
    start = max(0, count - count_kept - int(gamma * count))
    return rank_band(delta, start, start + count_kept)


def keep_random(delta: Array, density: float, rescale: bool, draw: np.random.Generator) -> Array | None:
    """DARE's random mask (Yu et al. 2024, arXiv 2311.03099): an entry stays with probability ``density``.

    With ``rescale`` the kept are divided by ``density``, as in the paper, so the expectation is the delta;
    mergekit 0.1.5 instead restores the sum of magnitudes of each tensor. Drawn on the CPU by a counter-based
    generator, so the mask is the same on every device.
    """
    if density >= 1:
        return None
    count = math.prod(delta.shape)
    mask = (draw.random(count, dtype=np.float32) < density).astype(np.float32)
    if rescale and density > 0:
        mask /= np.float32(density)
    return as_array_of(delta, mask)


def keep_by_rank(
    delta: Array, density: float, epsilon: float, rescale: bool, draw: np.random.Generator
) -> Array | None:
    """DELLA's mask (Deep et al. 2024, arXiv 2406.11617): larger entries of a row stay more probably.

    The probability grows linearly with the rank within the row from ``density - epsilon`` to
    ``density + epsilon`` (mergekit's epsilon is half the paper's). With ``rescale`` a kept entry is divided
    by its own probability, as in the paper; mergekit restores the tensor's sum of magnitudes. A row of one
    entry has probability ``density``.
    """
    if density >= 1:
        return None
    xp = library(delta)
    rows = delta.reshape(delta.shape[0], -1) if len(delta.shape) > 1 else delta.reshape(1, -1)
    width = rows.shape[1]
    if xp is np:
        order = np.argsort(np.abs(rows), axis=1, kind="stable")
        ranks = np.empty(rows.shape, np.float32)
        np.put_along_axis(ranks, order, np.arange(width, dtype=np.float32)[None], axis=1)
    else:
        order = rows.abs().argsort(dim=1, stable=True)
        ranks = order.argsort(dim=1).to(rows.dtype)
    share = ranks / (width - 1) if width > 1 else ranks + 0.5
    probability = ((density - epsilon) + 2 * epsilon * share).reshape(-1)
    drawn = as_array_of(delta, draw.random(math.prod(delta.shape), dtype=np.float32))
    mask = drawn < probability
    return mask / probability if rescale else mask


@dataclass(frozen=True, slots=True)
class SparsifyMethod:
    """What a method of the family "sparsify, elect, add up" is made of.

    Attributes:
        keep: how each delta is thinned: ``largest``, ``band``, ``random`` or ``rank``.
        elect: whether signs are elected as in TIES.
    """

    keep: str
    elect: bool

    def __call__(
        self,
        deltas: Sequence[Array],
        weights: Sequence[float],
        density: Sequence[float],
        *,
        normalize: bool,
        rescale: bool,
        lambda_: float = 1.0,
        gamma: float = 0.01,
        epsilon: float = 0.15,
        draws: Sequence[np.random.Generator] = (),
    ) -> Array:
        """Merge deltas; ``density`` holds the share to keep of each."""
        masks: list[Array | None] = []
        for index, (delta, share) in enumerate(zip(deltas, density, strict=True)):
            if self.keep == "random":
                masks.append(keep_random(delta, share, rescale, draws[index]))
            elif self.keep == "rank":
                masks.append(keep_by_rank(delta, share, epsilon, rescale, draws[index]))
            else:
                band = self.keep == "band"
                mask = keep_band(delta, share, gamma) if band else keep_largest(delta, share)
                masks.append(None if mask is None else _rescaled(delta, mask, rescale))
        return consensus(deltas, masks, weights, elect=self.elect, normalize=normalize, lambda_=lambda_)


def sce(deltas: Sequence[Array], *, select_topk: float = 1.0) -> Array:
    """SCE: select, calculate, erase (Wan et al. 2024, FuseChat, arXiv 2408.07990), as in mergekit.

    Keep the ``int(select_topk * m)`` entries whose variance over the inputs is largest, ``m`` counting those
    that vary at all; weigh each input by its share of the squared entries; erase entries against the
    elected sign.
    """
    xp = library(deltas[0])
    count = len(deltas)
    mask = None
    if select_topk < 1:
        variance = xp.empty_like(deltas[0])
        out, inputs = variance.reshape(-1), [delta.reshape(-1) for delta in deltas]
        for part in chunks(out):
            mean = sum(delta[part] for delta in inputs) / count
            out[part] = sum((delta[part] - mean) ** 2 for delta in inputs) / count
        total = math.prod(variance.shape)
        chosen = int(int((out != 0).sum()) * select_topk)
        mask = rank_band(variance, total - chosen, total)
        deltas = [(delta.reshape(-1) * mask).reshape(delta.shape) for delta in deltas]
    energy = [inner(delta, delta) / max(math.prod(delta.shape), 1) for delta in deltas]
    total_energy = math.fsum(energy)
    shares = [part / total_energy if total_energy >= 1e-6 else 1 / count for part in energy]
    merged = xp.empty_like(deltas[0])
    out, inputs = merged.reshape(-1), [delta.reshape(-1) for delta in deltas]
    for part in chunks(out):
        terms = [delta[part] for delta in inputs]
        counted = [agree * scalar(out, share) for agree, share in zip(_elected(terms), shares, strict=True)]
        total: Array = sum(term * factor for term, factor in zip(terms, counted, strict=True))
        divisor: Array = sum(counted)
        out[part] = total / divisor.clip(1e-6, None)
    return merged


ties = SparsifyMethod("largest", elect=True)
dare_linear = SparsifyMethod("random", elect=False)
dare_ties = SparsifyMethod("random", elect=True)
della = SparsifyMethod("rank", elect=True)
della_linear = SparsifyMethod("rank", elect=False)
breadcrumbs = SparsifyMethod("band", elect=False)
breadcrumbs_ties = SparsifyMethod("band", elect=True)
