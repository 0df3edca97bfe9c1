"""The algebra of LoRA factors: exact sums, inner products, truncation, DoRA's rescaling.

A delta is ``left @ right`` with ``left [rows, r]`` and ``right [r, columns]``, scale included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorkit.core.errors import InputError
from priorkit.merging.lora import Layout, Matrix


def dora_change(base: NDArray[Any], change: NDArray[Any], magnitude: NDArray[Any], layout: Layout) -> Matrix:
    """What a DoRA adapter adds to the base: ``m (W + BA) / |W + BA| - W`` (Liu et al. 2024, arXiv 2402.09353).

    The norm runs over all but the output dimension, as in PEFT.

    Args:
        base: the stored weight ``W``.
        change: the LoRA's ``BA`` with its scale, of the same shape.
        magnitude: ``m``, one value per output (per embedding dimension for embeddings).
        layout: which dimension is the output.
    """
    adapted = base + change
    output = 0 if layout in ("linear", "convolution") else adapted.ndim - 1
    others = tuple(axis for axis in range(adapted.ndim) if axis != output)
    size = np.sqrt(np.sum(np.square(adapted, dtype=np.float64), axis=others, keepdims=True))
    factor = (magnitude.reshape(size.shape) / size).astype(adapted.dtype)
    return adapted * factor - base


def factor_gram(factors: Sequence[tuple[Matrix, Matrix] | None]) -> NDArray[np.float64]:
    """Inner products of the products ``left_i @ right_i``, without forming them; None means zero."""
    count = len(factors)
    products = np.zeros((count, count))
    wide = [None if f is None else (f[0].astype(np.float64), f[1].astype(np.float64)) for f in factors]
    for row, one in enumerate(wide):
        for column in range(row + 1):
            other = wide[column]
            if one is not None and other is not None:
                value = float(np.sum((one[0].T @ other[0]) * (one[1] @ other[1].T)))
                products[row, column] = products[column, row] = value
    return products


def concatenate(
    factors: Sequence[tuple[Matrix, Matrix] | None], coefficients: Sequence[float]
) -> tuple[Matrix, Matrix] | None:
    """Factors of ``sum_i c_i left_i @ right_i``, exactly: side by side, of rank ``sum r_i``."""
    terms = [
        (pair[0] * pair[0].dtype.type(coefficient), pair[1])
        for pair, coefficient in zip(factors, coefficients, strict=True)
        if pair is not None and coefficient != 0
    ]
    if not terms:
        return None
    return np.hstack([left for left, _ in terms]), np.vstack([right for _, right in terms])


def factor_linear(
    factors: Sequence[tuple[Matrix, Matrix] | None], scales: Sequence[float], weights: Sequence[float]
) -> tuple[Matrix, Matrix] | None:
    """PEFT's ``add_weighted_adapter(combination_type="linear")``: A and B are added up apart.

    ``(sum_i sqrt|w_i s_i| B_i)(sum_i sgn(w_i s_i) sqrt|w_i s_i| A_i)``: it has cross terms ``B_i A_j`` and is
    not ``sum_i w_i s_i B_i A_i``.

    Args:
        factors: unscaled ``left = B`` and ``right = A``, of one rank.
        scales: each LoRA's scale.
        weights: each input's weight.

    Raises:
        InputError: the ranks differ.
    """
    terms = [
        (pair, weight * scale)
        for pair, scale, weight in zip(factors, scales, weights, strict=True)
        if pair is not None
    ]
    if not terms:
        return None
    ranks = sorted({pair[1].shape[0] for pair, _ in terms})
    if len(ranks) > 1:
        raise InputError(f"factors of ranks {ranks} cannot be added up apart", hint="use --method linear")
    left = sum(pair[0] * pair[0].dtype.type(math.sqrt(abs(x))) for pair, x in terms)
    right = sum(pair[1] * pair[1].dtype.type(math.copysign(math.sqrt(abs(x)), x)) for pair, x in terms)
    return np.asarray(left), np.asarray(right)


@dataclass(frozen=True, slots=True)
class Truncated:
    """A matrix in factors, and what truncation lost.

    Attributes:
        left: ``[rows, r]``.
        right: ``[r, columns]``.
        error: the norm of what was cut off.
        norm: the norm of the full matrix.
    """

    left: Matrix
    right: Matrix
    error: float
    norm: float


def rank_for(energies: NDArray[np.float64], rank: int | None, energy: float | None) -> int:
    """How many leading singular directions to keep.

    Args:
        energies: squared singular values, descending.
        rank: at most so many; None for no limit.
        energy: the least share of the sum to keep; None for all that ``rank`` allows.
    """
    total = float(energies.sum())
    components = int(np.count_nonzero(energies > total * 1e-15)) if total > 0 else 0
    if energy is not None and total > 0:
        components = min(
            components, int(np.searchsorted(np.cumsum(energies), energy * total * (1 - 1e-12))) + 1
        )
    return max(1, min(components, rank) if rank is not None else components)


def truncate_factors(left: Matrix, right: Matrix, rank: int | None, energy: float | None) -> Truncated:
    """The best approximation of ``left @ right`` of a lower rank (Eckart and Young), in float64."""
    q_left, r_left = np.linalg.qr(left.astype(np.float64))
    q_right, r_right = np.linalg.qr(right.T.astype(np.float64))
    u, values, v = np.linalg.svd(r_left @ r_right.T)
    energies = values**2
    components = min(rank_for(energies, rank, energy), len(values))
    root = np.sqrt(values[:components])
    return Truncated(
        (q_left @ u[:, :components]) * root,
        root[:, None] * (v[:components] @ q_right.T),
        math.sqrt(float(energies[components:].sum())),
        math.sqrt(float(energies.sum())),
    )


def truncate_dense(change: Matrix, rank: int | None, energy: float | None) -> Truncated:
    """The same for a dense matrix, by the eigenvectors of its smaller Gram matrix, in float64."""
    matrix = change.astype(np.float64)
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    values, vectors = np.linalg.eigh(wide @ wide.T)
    energies = np.maximum(values[::-1], 0.0)
    components = min(rank_for(energies, rank, energy), len(energies))
    basis = np.ascontiguousarray(vectors[:, ::-1][:, :components])
    other = basis.T @ wide
    root = energies[:components] ** 0.25
    safe = np.where(root > 0, root, 1.0)
    left, right = basis * root, other / safe[:, None]
    if wide is not matrix:
        left, right = right.T, left.T
    return Truncated(
        left, right, math.sqrt(float(energies[components:].sum())), math.sqrt(float(energies.sum()))
    )
