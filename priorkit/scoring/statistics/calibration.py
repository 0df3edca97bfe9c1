"""Whether stated probabilities are right as often as they say."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from priorkit.core.errors import InputError


def calibration_error(probabilities: ArrayLike, correct: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: the mean distance of confidence and accuracy over bins of equal width.

        ECE = sum over bins of (items in bin / items) * |accuracy in bin - mean probability in bin|

    Source: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks" (2017). Bins are
    ``(i / bins, (i + 1) / bins]``, the first one with 0.

    Args:
        probabilities: [items] of the stated verdicts, 0 to 1.
        correct: [items] bool, whether each was right.
        bins: their number.

    Returns:
        NaN without items.

    Raises:
        InputError: the lengths differ, or a probability is not between 0 and 1.
    """
    stated, right = (
        np.asarray(probabilities, dtype=np.float64).ravel(),
        np.asarray(correct, dtype=bool).ravel(),
    )
    if len(stated) != len(right):
        raise InputError(f"{len(stated)} probabilities for {len(right)} outcomes")
    if not len(stated):
        return math.nan
    if not ((stated >= 0) & (stated <= 1)).all():
        raise InputError("a probability must lie between 0 and 1")
    number = np.clip(np.ceil(stated * bins).astype(np.int64) - 1, 0, bins - 1)
    confidence = np.bincount(number, weights=stated, minlength=bins)
    accuracy = np.bincount(number, weights=right, minlength=bins)
    return float(np.abs(confidence - accuracy).sum() / len(stated))
