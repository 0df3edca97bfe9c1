"""The table of merge methods: names, parameters and defaults, as in mergekit 0.1.5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from priorkit.merging.arrays import Array
from priorkit.merging.linear import (
    KARCHER_TOLERANCE,
    karcher_coefficients,
    model_stock_coefficients,
    slerp_coefficients,
    weighted,
)
from priorkit.merging.sparsify import Selection, sce


@dataclass(frozen=True, slots=True)
class Method:
    """A method as the command line knows it.

    Attributes:
        name: mergekit's name, or one of our own where mergekit has none.
        parameters: the options it takes beside ``--weight``, with their defaults; slerp's ``t``
            follows from the weights, ``w_2 / (w_1 + w_2)``, where it is not given.
        takes_weights: whether ``--weight`` means something to it.
        on_models: whether full models are merged as they are; other methods, and adapters, use deltas.
        inputs: the fewest and the most inputs.
        coefficients: for combinations; called with the Gram matrix (None unless ``needs_gram``).
        select: for selections.
        needs_gram: whether the coefficients depend on the inputs' inner products.
        draws: whether it draws random numbers.
    """

    name: str
    parameters: Mapping[str, Any]
    takes_weights: bool = True
    on_models: bool = False
    inputs: tuple[int, int] = (1, 10**6)
    coefficients: Callable[..., list[float]] | None = None
    select: Callable[..., Array] | None = None
    needs_gram: bool = False
    draws: bool = False


def _family(name: str, keep: str, elect: bool, normalize: bool, rescale: bool, **more: Any) -> Method:
    parameters = {"density": 1.0, "normalize": normalize, "rescale": rescale, "lambda_": 1.0, **more}
    return Method(name, parameters, select=Selection(keep, elect), draws=keep in ("random", "rank"))


PEFT_FACTOR_LINEAR = "peft_factor_linear"
"""PEFT's ``linear``, which adds up A and B apart and so is no sum of deltas; see ``lora.factor_linear``."""

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "linear",
            {"normalize": True},
            on_models=True,
            coefficients=lambda products, weights, normalize: weighted(weights, normalize=normalize),
        ),
        Method(
            "slerp",
            {"t": None},
            on_models=True,
            inputs=(2, 2),
            coefficients=lambda products, weights, t: slerp_coefficients(
                products, t=weighted(weights, normalize=True)[1] if t is None else t
            ),
            needs_gram=True,
        ),
        Method(
            "task_arithmetic",
            {"normalize": False, "lambda_": 1.0},
            coefficients=lambda products, weights, **options: weighted(weights, **options),
        ),
        _family("ties", "largest", True, normalize=True, rescale=False),
        _family("dare_linear", "random", False, normalize=False, rescale=True),
        _family("dare_ties", "random", True, normalize=False, rescale=True),
        _family("della", "rank", True, normalize=True, rescale=True, epsilon=0.15),
        _family("della_linear", "rank", False, normalize=False, rescale=True, epsilon=0.15),
        _family("breadcrumbs", "band", False, normalize=False, rescale=False, gamma=0.01),
        _family("breadcrumbs_ties", "band", True, normalize=False, rescale=False, gamma=0.01),
        Method("sce", {"select_topk": 1.0}, takes_weights=False, select=sce),
        Method(
            "model_stock",
            {},
            takes_weights=False,
            inputs=(2, 10**6),
            coefficients=lambda products, weights: model_stock_coefficients(products),
            needs_gram=True,
        ),
        Method(
            "karcher",
            {"max_iter": 10, "tol": KARCHER_TOLERANCE},
            on_models=True,
            coefficients=lambda products, weights, **options: karcher_coefficients(
                products, weights, **options
            ),
            needs_gram=True,
        ),
        Method(PEFT_FACTOR_LINEAR, {}),
    )
}
"""All methods by name."""
