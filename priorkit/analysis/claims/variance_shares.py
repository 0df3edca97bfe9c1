"""Shares of variance in a two-way design."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from priorkit.analysis.claims.base import EFFECT, Floats, Measure, Term


class VarianceShares(Measure):
    """How much more of the variance the first factor explains than the second: ``omega^2_first - omega^2_second``.

    Every cell of the design is one variant, its seeds are the replicates. ``omega^2 = (SS - df MS_error) / (SS_total +
    MS_error)`` of each factor and of their interaction (Hays, "Statistics for Psychologists", 1963): unlike ``SS / SS_total``
    it does not grow with noise, and is 0 on average where a factor has no effect; it may then be slightly negative.

    Attributes:
        factors: names of the two factors, rows first.
        cells: evaluations: a row per level of the first factor, a column per level of the second.
    """

    kind: ClassVar[str] = "variance-shares"
    factors: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)]
    cells: Annotated[tuple[tuple[str, ...], ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _is_a_table(self) -> VarianceShares:
        lengths = [len(row) for row in self.cells]
        if len(set(lengths)) > 1 or lengths[0] < 2:
            raise ValueError(f"all rows of 'cells' should have the same length, at least 2, got {lengths}")
        return self

    def terms(self) -> list[Term]:
        """One per cell, row by row."""
        return [self.term(label, self) for row in self.cells for label in row]

    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The difference, and the share of each factor, of their interaction and of the rest; NaN for one seed."""
        rows, columns = len(self.cells), len(self.cells[0])
        first, second, both = omega_squared(statistics.reshape(*statistics.shape[:2], rows, columns))
        means = statistics.mean(1)
        return {
            EFFECT: first - second,
            self.factors[0]: first,
            self.factors[1]: second,
            "interaction": both,
            "rest (seeds and items)": 1 - first - second - both,
            **{term.title: means[:, index] for index, term in enumerate(self.terms())},
        }


def omega_squared(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Hays' omega squared of the rows, of the columns and of their interaction.

    Args:
        values: float64 ``[..., replicates, rows, columns]``.

    Returns:
        float64 ``[...]`` each; NaN for one replicate, or where nothing varies.
    """
    replicates, rows, columns = values.shape[-3:]
    undefined = np.full(values.shape[:-3], np.nan)
    if replicates < 2:
        return undefined, undefined, undefined
    cell = values.mean(-3)
    grand = cell.mean((-2, -1))
    row, column = cell.mean(-1) - grand[..., None], cell.mean(-2) - grand[..., None]
    rest = cell - grand[..., None, None] - row[..., :, None] - column[..., None, :]
    squares = (
        replicates * columns * (row**2).sum(-1),
        replicates * rows * (column**2).sum(-1),
        replicates * (rest**2).sum((-2, -1)),
    )
    error = ((values - cell[..., None, :, :]) ** 2).sum((-3, -2, -1))
    mean_error = error / (rows * columns * (replicates - 1))
    total = sum(squares, error) + mean_error
    freedom = (rows - 1, columns - 1, (rows - 1) * (columns - 1))
    shares = [
        np.divide(square - degrees * mean_error, total, out=undefined.copy(), where=total > 1e-15)
        for square, degrees in zip(squares, freedom, strict=True)
    ]
    return shares[0], shares[1], shares[2]
