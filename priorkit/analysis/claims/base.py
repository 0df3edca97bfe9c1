"""What every measure of a claim has in common: how it selects scores, and how it turns them into effects."""

from __future__ import annotations

import re
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from priorkit.core.errors import nearest
from priorkit.core.options.value_kinds import CheckedValues

Floats = NDArray[np.float64]

VALUES = ("score", "iou", "unparsed", "yes")
"""What may be averaged over items, in addition to ``accuracy_at_X``."""

EFFECT = "effect"
"""The key of the effect itself among what a measure returns."""

Where = dict[str, tuple[str, ...]]


class ClaimTable(CheckedValues):
    """A table of a file of claims: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(ClaimTable):
    """Which items count, and what of them; what a part leaves out it has from its measure.

    Attributes:
        benchmarks: names of benchmarks; their means are averaged with equal weights.
        value: ``score``, ``iou``, ``accuracy_at_X`` (whether the IoU reaches X), ``unparsed`` (whether the answer could
            not be read), ``yes`` (whether it is yes).
        where: column of the samples -> the values that count.
    """

    benchmarks: tuple[str, ...] = ()
    value: str = ""
    where: Where = Field(default_factory=dict[str, tuple[str, ...]])

    @field_validator("value")
    @classmethod
    def _known_value(cls, value: str) -> str:
        if value and value not in VALUES and not re.fullmatch(r"accuracy_at_0\.\d+", value):
            raise ValueError(f"no value '{value}' ({nearest(value, (*VALUES, 'accuracy_at_0.5'))})")
        return value

    @field_validator("where", mode="before")
    @classmethod
    def _one_or_many(cls, where: Any) -> Any:
        if not isinstance(where, Mapping):
            return where
        columns = typing.cast("Mapping[str, Any]", where)
        return {
            column: [_text(value) for value in (values if isinstance(values, list | tuple) else [values])]
            for column, values in columns.items()
        }


def _text(value: Any) -> str:
    """A value as samples spell it: booleans are yes and no."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


class WeightedTerm(Selection):
    """An evaluation's mean with its weight in a contrast; the mean of several evaluations has their weight together."""

    evaluation: Annotated[tuple[str, ...], Field(min_length=1)]
    weight: float = 1.0


@dataclass(frozen=True)
class Term:
    """The mean of one variant's items.

    Attributes:
        label: the artifact, without its seed.
        benchmarks: names; empty for a table of entities.
        value: what of an item.
        where: which items.
        column: a column of the ranks instead, one number per entity.
        source: ``evaluation``, ``ranks`` or ``entities``.
        title: how messages and the report call it.
    """

    label: str
    benchmarks: tuple[str, ...] = ()
    value: str = "score"
    where: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    column: str = ""
    source: typing.Literal["evaluation", "ranks", "entities"] = "evaluation"

    @property
    def title(self) -> str:
        """How the report calls it: its label and what is selected."""
        if self.source == "entities":
            return self.column
        if self.source == "ranks":
            return f"{self.label} {self.column}"
        selected = [" or ".join(values) for values in self.where.values()]
        return ", ".join([self.label, *selected])


@dataclass(frozen=True)
class UnitScores:
    """Sums and numbers of items by unit, of all seeds and terms.

    Attributes:
        seeds: names of the seeds.
        terms: what is averaged.
        sums: float64 ``[seeds, terms, cells, units]``; a cell is a benchmark, or one bin of it.
        counts: float64 ``[seeds, terms, cells, units]``, items.
        cell_weights: float64 ``[terms, cells]``, adding up to 1 over cells.
        strata: int64 ``[units]``: units are resampled within a stratum.
        items: number of different items.
        unit: what a unit is.
        notes: what was left out.
    """

    seeds: Sequence[str]
    terms: Sequence[Term]
    sums: Floats
    counts: Floats
    cell_weights: Floats
    strata: NDArray[np.int64]
    items: int
    unit: str
    notes: Sequence[str] = ()

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.sums.shape[-1]

    def resampling(self, seed: int, resamples: int) -> Floats:
        """How often each unit counts: once in the first row, as often as it was drawn in the others.

        Returns:
            float64 ``[1 + resamples, units]``.
        """
        generator = np.random.Generator(np.random.PCG64(seed))
        weights = np.ones((1 + resamples, self.units))
        for stratum in np.unique(self.strata):
            columns = np.flatnonzero(self.strata == stratum)
            share = np.full(len(columns), 1 / len(columns))
            weights[1:, columns] = generator.multinomial(len(columns), share, resamples)
        return weights

    def means(self, weights: Floats) -> Floats:
        """Weighted means of the terms; NaN where no item of a cell that counts was drawn.

        Args:
            weights: float64 ``[resamples, units]``.

        Returns:
            float64 ``[resamples, seeds, terms]``.
        """
        shape = self.sums.shape[:-1]
        sums = (weights @ self.sums.reshape(-1, self.units).T).reshape(-1, *shape)
        counts = (weights @ self.counts.reshape(-1, self.units).T).reshape(-1, *shape)
        means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return np.where(self.cell_weights > 0, means * self.cell_weights, 0.0).sum(-1)

    def unit_means(self) -> Floats:
        """Each unit's mean over all its items: float64 ``[seeds, terms, units]``, NaN where it has none."""
        sums, counts = self.sums.sum(2), self.counts.sum(2)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


class Measure(Selection, ABC):
    """How the effect that a claim predicts is computed. Each kind is a subclass, listed in ``registry.py``.

    Attributes:
        kind: the name of the kind.
        name: what is measured, in a few words.
        smallest: the smallest effect of interest, in the effect's unit; a control may have none.
        unit: column of the samples whose values are resampled together; images (or items) where empty.
        balance: column of numbers that all terms are balanced in: means are taken in its bins and averaged with the
            same weights for every term.
        bins: number of bins of ``balance``, of equal counts.
    """

    kind: ClassVar[str]
    must_be_positive: ClassVar[str] = ""
    """A part that must be surely above 0, or the effect means nothing."""
    needs_all_terms: ClassVar[bool] = False
    """Whether a unit counts only if all terms have it."""

    name: str
    smallest: Annotated[float | None, Field(gt=0)] = None
    unit: str = ""
    balance: str = ""
    bins: Annotated[int, Field(ge=2, le=20)] = 4

    @abstractmethod
    def terms(self) -> list[Term]:
        """What is averaged."""

    def statistics(self, scores: UnitScores, weights: Floats) -> Floats:
        """What the effects are computed from, by seed.

        Args:
            scores: the scores of :meth:`terms`.
            weights: float64 ``[resamples, units]``.

        Returns:
            float64 ``[resamples, seeds, statistics]``; the terms' means unless a kind needs others.
        """
        return scores.means(weights)

    @abstractmethod
    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The effect, and what it is made of, over all seeds given.

        Args:
            statistics: float64 ``[resamples, seeds, statistics]``.

        Returns:
            name -> float64 ``[resamples]``, first :data:`EFFECT`; NaN where it is undefined.
        """

    def term(self, label: str, part: Selection) -> Term:
        """A term of this measure: what the part leaves out is the measure's."""
        return Term(
            label,
            part.benchmarks or self.benchmarks,
            part.value or self.value or "score",
            {**self.where, **part.where},
        )
