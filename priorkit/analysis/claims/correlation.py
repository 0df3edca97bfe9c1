"""Partial rank correlation over entities."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from priorkit.analysis.claims.base import EFFECT, Floats, Measure, Selection, Term, UnitScores


class Variable(Selection):
    """One number per entity: a column of ranks, a mean over an evaluation's items, or a column of entities.

    Attributes:
        ranks: label of the `rank-e` scores whose ``column`` it is.
        evaluation: label of the evaluation whose items are averaged.
        column: of the ranks, or else of the table of entities.
        weight: -1 to reverse it.
    """

    ranks: str = ""
    evaluation: str = ""
    column: str = ""
    weight: float = 1.0

    @model_validator(mode="after")
    def _one_source(self) -> Variable:
        if bool(self.evaluation) == bool(self.column) or (self.ranks and not self.column):
            raise ValueError(
                "a variable is an evaluation, or ranks with a column, or a column of the table of entities"
            )
        return self


class PartialCorrelation(Measure):
    """Spearman's partial correlation of two variables over entities, given others; the mean over seeds.

    All variables are ranked; ``-P_xy / sqrt(P_xx P_yy)`` of the inverse ``P`` of their correlation matrix, which equals
    the correlation of residuals (:func:`priorkit.scoring.statistics.correlation.partial_spearman`). A resample counts
    each entity as often as it was drawn.
    """

    kind: ClassVar[str] = "partial-correlation"
    needs_all_terms: ClassVar[bool] = True
    unit: str = "entity"
    x: Variable
    y: Variable
    given: Annotated[tuple[Variable, ...], Field()] = ()

    @model_validator(mode="after")
    def _over_units(self) -> PartialCorrelation:
        if not self.unit:
            raise ValueError("a correlation needs a unit such as 'entity'")
        if self.balance:
            raise ValueError("'balance' has no effect on a correlation; name the column under 'given'")
        return self

    @property
    def variables(self) -> tuple[Variable, ...]:
        """x, y, then those held fixed."""
        return (self.x, self.y, *self.given)

    def terms(self) -> list[Term]:
        """One per variable."""
        return [self._term(variable) for variable in self.variables]

    def _term(self, variable: Variable) -> Term:
        if variable.evaluation:
            return self.term(variable.evaluation, variable)
        if variable.ranks:
            return Term(variable.ranks, column=variable.column, source="ranks")
        return Term("", column=variable.column, source="entities")

    def statistics(self, scores: UnitScores, weights: Floats) -> Floats:
        """The partial and the plain correlation of every seed: float64 ``[resamples, seeds, 2]``."""
        signs = np.array([variable.weight for variable in self.variables])
        values = scores.unit_means() * signs[:, None]
        return np.stack([partial_rank_correlations(table, weights) for table in values], axis=1)

    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The partial correlation, and the one with nothing held fixed."""
        means = statistics.mean(1)
        return {EFFECT: means[:, 0], "nothing held fixed": means[:, 1]}


def partial_rank_correlations(values: Floats, weights: Floats) -> Floats:
    """Partial and plain rank correlation of the first two variables, of every resample.

    Args:
        values: float64 ``[variables, units]``; units with a NaN are left out.
        weights: float64 ``[resamples, units]``, how often each unit counts.

    Returns:
        float64 ``[resamples, 2]``: the partial correlation of variables 0 and 1 given the others, and the plain one;
        NaN where one of the two is constant or determined by the others, or where those determine each other.
    """
    known = ~np.isnan(values).any(0)
    values, weights = values[:, known], weights[:, known]
    size = weights.sum(1, keepdims=True)
    ranked = np.stack([_weighted_ranks(row, weights) for row in values], axis=1)
    # The mean rank is the same for all variables, tied or not.
    centered = ranked - (size[:, None] + 1) / 2
    products = np.einsum("rvu,rwu,ru->rvw", centered, centered, weights)
    scale = np.sqrt(np.diagonal(products, axis1=1, axis2=2)).copy()
    # What is constant holds nothing fixed: as if it were not given.
    scale[:, 2:] = np.where(scale[:, 2:] > 1e-9, scale[:, 2:], np.inf)
    found = np.full((len(weights), 2), np.nan)
    # Fewer units drawn than variables leave no residuals.
    enough = (weights > 0).sum(1) > len(values) + 1
    varied = (scale > 1e-9).all(1) & enough
    if not varied.any():
        return found
    matrices = products[varied] / (scale[varied, :, None] * scale[varied, None, :])
    matrices[:, range(len(values)), range(len(values))] = 1.0
    found[varied, 1] = matrices[:, 0, 1].clip(-1, 1)
    regular = np.linalg.cond(matrices[:, 2:, 2:]) < 1e9 if len(values) > 2 else np.ones(len(matrices), bool)
    found[np.flatnonzero(varied)[regular], 0] = _given_the_rest(matrices[regular])
    return found


def _given_the_rest(matrices: Floats) -> Floats:
    """Partial correlations of the first two variables, from correlation matrices ``[resamples, variables, variables]``.

    The Schur complement of the others: unlike the inverse of the full matrix it exists where the first two are
    perfectly correlated.
    """
    first, cross, rest = matrices[:, :2, :2], matrices[:, :2, 2:], matrices[:, 2:, 2:]
    left = first - cross @ np.linalg.solve(rest, np.swapaxes(cross, 1, 2)) if rest.shape[1] else first
    variances = left[:, [0, 1], [0, 1]]
    scale = np.sqrt(np.maximum(variances, 0.0).prod(1))
    defined = (variances > 1e-9).all(1)
    return np.divide(left[:, 0, 1], scale, out=np.full(len(left), np.nan), where=defined).clip(-1, 1)


def _weighted_ranks(values: Floats, weights: Floats) -> Floats:
    """Mean ranks of units that count several times: float64 ``[resamples, units]``.

    Args:
        values: float64 ``[units]``.
        weights: float64 ``[resamples, units]``.
    """
    distinct, group = np.unique(values, return_inverse=True)
    counts = np.zeros((len(weights), len(distinct)))
    np.add.at(counts.T, group, weights.T)
    before = np.cumsum(counts, axis=1) - counts
    return (before + (counts + 1) / 2)[:, group]
