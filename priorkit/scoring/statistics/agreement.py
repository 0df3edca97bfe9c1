"""Agreement of two labelers on the same items, for one binary label.

Source of kappa: Cohen (1960), "A Coefficient of Agreement for Nominal Scales". Values equal scikit-learn's
``precision_recall_fscore_support`` and ``cohen_kappa_score``; what is undefined there is NaN here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from priorkit.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one labeler agrees with a reference.

    Attributes:
        items: number of items.
        given: number of items with the label in the reference.
        predicted: number of items with the label from the other labeler.
        precision: share of the predicted that the reference has; NaN if none is predicted.
        recall: share of the reference's that are predicted; NaN if the reference has none.
        f1: ``2 both / (given + predicted)``; NaN if neither has the label.
        kappa: agreement beyond chance: 0 at chance, 1 for equal labels; NaN if both are constant and equal.
    """

    items: int
    given: int
    predicted: int
    precision: float
    recall: float
    f1: float
    kappa: float


def agreement(reference: ArrayLike, predicted: ArrayLike) -> Agreement:
    """Compare a binary label on the same items.

    Args:
        reference: bool ``[items]``.
        predicted: bool ``[items]``.

    Raises:
        InputError: there is no item, or the lengths differ.
    """
    first, second = np.asarray(reference, dtype=bool).ravel(), np.asarray(predicted, dtype=bool).ravel()
    if not len(first) or len(first) != len(second):
        raise InputError(f"agreement needs the same items, got {len(first)} and {len(second)}")
    items, given, marked, both = len(first), int(first.sum()), int(second.sum()), int((first & second).sum())
    observed = float((first == second).mean())
    chance = (given * marked + (items - given) * (items - marked)) / items**2
    return Agreement(
        items=items,
        given=given,
        predicted=marked,
        precision=_ratio(both, marked),
        recall=_ratio(both, given),
        f1=_ratio(2 * both, given + marked),
        kappa=math.nan if chance == 1 else (observed - chance) / (1 - chance),
    )


def _ratio(part: int, total: int) -> float:
    return part / total if total else math.nan
