"""Merging by sums: coefficients from the weights and, for some methods, from the inputs' inner products.

A combination is ``sum_i c_i x_i`` with one coefficient per input and tensor, so it is exact in the space of
LoRA factors too. Names and defaults are those of mergekit 0.1.5; where its definition and the paper's differ,
the docstring says which one is here. Arrays are numpy's or torch's, float32 or float64, and are not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from priorkit.core.errors import InputError, UsageError
from priorkit.merging.methods.arrays import Array, chunks, gram, library

Gram = np.ndarray[Any, np.dtype[np.float64]]

_COLLINEAR = 0.9995
KARCHER_TOLERANCE = 1e-5


def weighted(weights: Sequence[float], *, normalize: bool, lambda_: float = 1.0) -> list[float]:
    """Coefficients of a weighted sum: ``lambda * w_i``, or ``lambda * w_i / sum w``.

    ``linear`` (model soups, Wortsman et al. 2022, arXiv 2203.05482) normalizes by default;
    ``task_arithmetic`` (Ilharco et al. 2023, arXiv 2212.04089) does not.

    Raises:
        UsageError: normalizing weights that sum to 0 (mergekit then divides by 1 or by 0).
    """
    if not normalize:
        return [lambda_ * weight for weight in weights]
    total = math.fsum(weights)
    if abs(total) < 1e-8:
        raise UsageError("the weights sum to 0 and cannot be normalized", hint="use --no-normalize")
    return [lambda_ * weight / total for weight in weights]


def slerp_coefficients(products: Gram, *, t: float) -> list[float]:
    """Spherical interpolation from the first input (``t = 0``) to the second (``t = 1``).

    ``sin((1-t)a)/sin(a) x + sin(ta)/sin(a) y`` with the angle ``a`` between them (Shoemake 1985); linear
    where they are nearly collinear (``|cos a| > 0.9995``), as in mergekit.

    Raises:
        InputError: one of the two is zero and so has no direction (mergekit takes the angle for a right one).
    """
    first, second = math.sqrt(products[0, 0]), math.sqrt(products[1, 1])
    if first == 0 and second == 0:
        return [1 - t, t]
    if first == 0 or second == 0:
        which = "first" if first == 0 else "second"
        raise InputError(f"slerp needs directions, and the {which} input is zero here", hint="use linear")
    cosine = float(np.clip(products[0, 1] / (first * second), -1, 1))
    if abs(cosine) > _COLLINEAR:
        return [1 - t, t]
    angle = math.acos(cosine)
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def model_stock_coefficients(products: Gram) -> list[float]:
    """Model Stock (Jang et al. 2024, arXiv 2403.19522), a layer at a time.

    The mean of the ``n`` deltas times ``t = n cos / (1 + (n-1) cos)``, ``cos`` being their mean pairwise
    cosine; 0 where the denominator vanishes. mergekit's option ``filter_wise`` is not offered.
    """
    count = len(products)
    sizes = np.sqrt(np.diag(products))
    cosines = [
        float(np.clip(products[a, b] / max(sizes[a] * sizes[b], 1e-6), -1, 1))
        for a in range(count)
        for b in range(a)
    ]
    cosine = math.fsum(cosines) / len(cosines)
    denominator = 1 + (count - 1) * cosine
    ratio = count * cosine / denominator if abs(denominator) >= 1e-6 else 0.0
    return [ratio / count] * count


def karcher_coefficients(
    products: Gram, weights: Sequence[float], *, max_iter: int = 10, tol: float = KARCHER_TOLERANCE
) -> list[float]:
    """The weighted Karcher (Riemannian) mean of the inputs' directions, with the mean of their norms.

    Gradient descent on the unit sphere (Karcher 1977; for merging arXiv 2603.04972). All iterates are in
    the span of the inputs, so it runs on coefficients and inner products, whatever the tensors' size.
    mergekit weighs all inputs alike; zero inputs have no direction and only lower the norm.
    """
    sizes = np.sqrt(np.diag(products))
    shares = np.asarray(weighted(weights, normalize=True))
    if len(products) == 1:
        return [1.0]
    valid = np.flatnonzero(sizes > tol)
    if valid.size == 0:
        return [0.0] * len(products)
    cosines = products[np.ix_(valid, valid)] / np.outer(sizes[valid], sizes[valid])
    alphas = shares[valid] / shares[valid].sum()

    def unit(vector: Gram) -> tuple[Gram, float]:
        size = math.sqrt(max(float(vector @ cosines @ vector), 0.0))
        return (vector / size if size > 0 else vector), size

    mean, size = unit(alphas)
    if size < tol:
        mean = np.eye(valid.size)[0]
    for _ in range(max_iter):
        tangent = np.zeros(valid.size)
        for index, alpha in enumerate(alphas):
            cosine = float(np.clip(cosines[index] @ mean, -1, 1))
            angle = math.acos(cosine)
            if angle >= tol and math.sin(angle) > 0:
                direction = -cosine * mean
                direction[index] += 1
                tangent += alpha * angle / math.sin(angle) * direction
        direction, length = unit(tangent)
        if length < tol:
            break
        mean, _ = unit(math.cos(length) * mean + math.sin(length) * direction)
    coefficients = np.zeros(len(products))
    coefficients[valid] = float(shares @ sizes) * mean / sizes[valid]
    return coefficients.tolist()


def combine(tensors: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """``sum_i c_i x_i``, accumulated in the inputs' precision."""
    merged = library(tensors[0]).empty_like(tensors[0])
    flat, inputs = merged.reshape(-1), [tensor.reshape(-1) for tensor in tensors]
    for part in chunks(flat):
        total = inputs[0][part] * coefficients[0]
        for tensor, coefficient in zip(inputs[1:], coefficients[1:], strict=True):
            total += tensor[part] * coefficient
        flat[part] = total
    return merged


def linear(tensors: Sequence[Array], weights: Sequence[float], *, normalize: bool = True) -> Array:
    """The weighted mean (or sum) of the inputs; see :func:`weighted`."""
    return combine(tensors, weighted(weights, normalize=normalize))


def task_arithmetic(
    deltas: Sequence[Array], weights: Sequence[float], *, normalize: bool = False, lambda_: float = 1.0
) -> Array:
    """The weighted sum of the deltas times lambda; see :func:`weighted`."""
    return combine(deltas, weighted(weights, normalize=normalize, lambda_=lambda_))


def slerp(tensors: Sequence[Array], *, t: float) -> Array:
    """Spherical interpolation of two inputs; see :func:`slerp_coefficients`."""
    return combine(tensors, slerp_coefficients(gram(tensors), t=t))


def model_stock(deltas: Sequence[Array]) -> Array:
    """Model Stock; see :func:`model_stock_coefficients`."""
    return combine(deltas, model_stock_coefficients(gram(deltas)))


def karcher(
    tensors: Sequence[Array], weights: Sequence[float], *, max_iter: int = 10, tol: float = KARCHER_TOLERANCE
) -> Array:
    """The Karcher mean; see :func:`karcher_coefficients`."""
    return combine(tensors, karcher_coefficients(gram(tensors), weights, max_iter=max_iter, tol=tol))
