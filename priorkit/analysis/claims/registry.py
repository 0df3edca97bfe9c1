"""The kinds of effect. A new one is a class of :class:`priorkit.analysis.claims.base.Measure` and a line here."""

from __future__ import annotations

from priorkit.analysis.claims.base import Measure
from priorkit.analysis.claims.contrasts import Difference, ErrorReduction, Saturation
from priorkit.analysis.claims.correlation import PartialCorrelation
from priorkit.analysis.claims.variance_shares import VarianceShares

KINDS: dict[str, type[Measure]] = {
    kind.kind: kind for kind in (Difference, ErrorReduction, Saturation, PartialCorrelation, VarianceShares)
}
"""Kind -> its class."""
