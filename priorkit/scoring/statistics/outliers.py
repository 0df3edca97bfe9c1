"""Conformal p-values: is a value as low as hardly any of the controls'? And their false-discovery rate.

Sources: Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values" (Annals of Statistics
2023): p-values of values that are exchangeable with the controls' are valid, and Benjamini-Hochberg keeps the
false-discovery rate although all share the controls; Benjamini and Hochberg (1995).
"""

from __future__ import annotations

# scipy has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def conformal_p_values(values: ArrayLike, controls: ArrayLike) -> Floats:
    """One-sided p-values that a value is lower than the controls'.

        p = (1 + #{controls <= value}) / (1 + #controls)

    Args:
        values: [items]; NaN has p-value NaN.
        controls: [controls]; NaN are left out.

    Returns:
        [items]; NaN for all where there is no control.
    """
    tested = np.asarray(values, dtype=np.float64).ravel()
    known = np.asarray(controls, dtype=np.float64).ravel()
    known = np.sort(known[~np.isnan(known)])
    if not len(known):
        return np.full(len(tested), np.nan)
    p_values = (1 + np.searchsorted(known, tested, side="right")) / (1 + len(known))
    return np.where(np.isnan(tested), np.nan, p_values)


def bonferroni(p_values: Sequence[Floats]) -> Floats:
    """One p-value per item for several tests of one hypothesis: the smallest times the number of tests made.

    Args:
        p_values: of each test, [items]; NaN where a test could not be made.

    Returns:
        [items]; NaN where none could.
    """
    stacked = np.stack(list(p_values))
    made = (~np.isnan(stacked)).sum(0)
    smallest = np.where(np.isnan(stacked), np.inf, stacked).min(0)
    return np.where(made > 0, np.minimum(1.0, smallest * np.maximum(made, 1)), np.nan)


def adjusted_p_values(p_values: ArrayLike) -> Floats:
    """Benjamini-Hochberg's adjusted p-values: rejecting those up to q keeps the false-discovery rate at q.

    Args:
        p_values: [items]; NaN are not among the tests and stay NaN.
    """
    from scipy.stats import false_discovery_control

    tested = np.asarray(p_values, dtype=np.float64).ravel()
    made = ~np.isnan(tested)
    adjusted = np.full(len(tested), np.nan)
    if made.any():
        adjusted[made] = false_discovery_control(tested[made])
    return adjusted
