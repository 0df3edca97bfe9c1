"""Agreement of two labellers on the same items, one yes-or-no label at a time.

Source of kappa: Cohen (1960), "A Coefficient of Agreement for Nominal Scales". Values equal scikit-learn's
``precision_recall_fscore_support`` and ``cohen_kappa_score``; what these leave undefined is NaN here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from priorkit.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one labeller follows a reference.

    Attributes:
        items: number of items.
        given: how many of them the reference gives the label.
        predicted: how many the other one gives it.
        precision: share of the predicted that the reference gives; NaN where none is predicted.
        recall: share of the given that are predicted; NaN where none is given.
        f1: harmonic mean of both, ``2 both / (given + predicted)``; NaN where neither gives the label.
        kappa: agreement beyond chance, 0 by chance, 1 for equal labels; NaN where both are constant and equal.
    """

    items: int
    given: int
    predicted: int
    precision: float
    recall: float
    f1: float
    kappa: float


def agreement(reference: ArrayLike, predicted: ArrayLike) -> Agreement:
    """Compare one label's presence on the same items.

    Args:
        reference: bool ``[items]``.
        predicted: bool ``[items]``.

    Raises:
        InputError: there is no item, or the lengths differ.
    """
    one, other = np.asarray(reference, dtype=bool).ravel(), np.asarray(predicted, dtype=bool).ravel()
    if not len(one) or len(one) != len(other):
        raise InputError(f"agreement needs the same items, got {len(one)} and {len(other)}")
    items, given, found, both = len(one), int(one.sum()), int(other.sum()), int((one & other).sum())
    observed = float((one == other).mean())
    chance = (given * found + (items - given) * (items - found)) / items**2
    return Agreement(
        items=items,
        given=given,
        predicted=found,
        precision=_ratio(both, found),
        recall=_ratio(both, given),
        f1=_ratio(2 * both, given + found),
        kappa=math.nan if chance == 1 else (observed - chance) / (1 - chance),
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
