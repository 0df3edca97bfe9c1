"""Effects from means: differences, reductions of the remaining error, saturation."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field, model_validator

from priorkit.analysis.claims.base import EFFECT, Floats, Measure, Selection, Term, WeightedTerm


class Difference(Measure):
    """A linear contrast: ``sum_t weight_t mean_t``, the weights adding up to 0."""

    kind: ClassVar[str] = "difference"
    contrast: Annotated[tuple[WeightedTerm, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _is_a_contrast(self) -> Difference:
        total = math.fsum(term.weight for term in self.contrast)
        if abs(total) > 1e-9:
            raise ValueError(f"the weights of a difference should add up to 0, got {total:g}")
        return self

    def terms(self) -> list[Term]:
        """The terms of the contrast."""
        return [self.term(label, part) for part in self.contrast for label in part.evaluation]

    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The contrast, and the mean of every term."""
        means = statistics.mean(1)
        weights = [part.weight / len(part.evaluation) for part in self.contrast for _ in part.evaluation]
        effect = means @ np.array(weights)
        return {EFFECT: effect, **_titled(self.terms(), means)}


class Gain(Selection):
    """Two evaluations of the same items, with the weight of their error reduction."""

    before: str
    after: str
    weight: float = 1.0


class ErrorReduction(Measure):
    """Gains as shares of the remaining error: ``sum_g weight_g (after_g - before_g) / (1 - before_g)``.

    Scores are averaged over seeds before the ratio is taken, which is then less biased than a mean of ratios.
    """

    kind: ClassVar[str] = "error-reduction"
    gains: Annotated[tuple[Gain, ...], Field(min_length=1)]

    def terms(self) -> list[Term]:
        """Before and after of each gain."""
        return [self.term(label, gain) for gain in self.gains for label in (gain.before, gain.after)]

    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The weighted sum, each gain's share of the remaining error, and the mean of every term."""
        means = statistics.mean(1)
        before, after = means[:, 0::2], means[:, 1::2]
        shares = np.divide(
            after - before, 1 - before, out=np.full_like(before, np.nan), where=before < 1 - 1e-12
        )
        effect = shares @ np.array([gain.weight for gain in self.gains])
        terms = self.terms()
        parts = {
            f"reduction {terms[2 * index + 1].title}": shares[:, index] for index in range(len(self.gains))
        }
        return {EFFECT: effect, **parts, **_titled(terms, means)}


class Saturation(Measure):
    """How much earlier a gain is reached than in proportion to the share of what brings it.

    With the mean score ``m(s)`` at share ``s``, from the first share ``a`` to the last ``b``:
    ``(m(reached) - m(a)) / (m(b) - m(a)) - (reached - a) / (b - a)``. 0 is growth in proportion; the largest value is what
    is left when all is gained at ``reached``. The total gain must be surely above 0: otherwise there is nothing of
    which a share could be reached (Fieller's condition for the interval of a ratio to be bounded).
    """

    kind: ClassVar[str] = "saturation"
    must_be_positive: ClassVar[str] = "total gain"
    evaluations: Annotated[tuple[str, ...], Field(min_length=3)]
    shares: Annotated[tuple[float, ...], Field(min_length=3)]
    reached: float

    @model_validator(mode="after")
    def _shares_fit(self) -> Saturation:
        if len(self.shares) != len(self.evaluations):
            raise ValueError(
                f"as many shares as evaluations are needed, got {len(self.shares)} and {len(self.evaluations)}"
            )
        if any(first >= second for first, second in zip(self.shares, self.shares[1:], strict=False)):
            raise ValueError(f"the shares should increase, got {list(self.shares)}")
        if self.reached not in self.shares[1:-1]:
            raise ValueError(
                f"'reached' should be one of the shares between the first and the last, {list(self.shares[1:-1])}, "
                f"got {self.reached:g}"
            )
        return self

    def terms(self) -> list[Term]:
        """One per share."""
        return [self.term(label, self) for label in self.evaluations]

    def effects(self, statistics: Floats) -> dict[str, Floats]:
        """The effect, the share of the gain reached, the total gain, and the mean at every share."""
        means = statistics.mean(1)
        total = means[:, -1] - means[:, 0]
        partial = means[:, self.shares.index(self.reached)] - means[:, 0]
        share = np.divide(partial, total, out=np.full_like(total, np.nan), where=np.abs(total) > 1e-12)
        first, last = self.shares[0], self.shares[-1]
        return {
            EFFECT: share - (self.reached - first) / (last - first),
            "share of the gain reached": share,
            self.must_be_positive: total,
            **{
                f"share {amount:g}": mean
                for amount, mean in zip(self.shares, np.moveaxis(means, 1, 0), strict=True)
            },
        }


def _titled(terms: list[Term], means: Floats) -> dict[str, Floats]:
    """The means ``[resamples, terms]`` by the terms' titles; terms that are the same appear once."""
    titles = [term.title for term in terms]
    doubled = {title for title in titles if titles.count(title) > 1}
    named: dict[str, Floats] = {}
    for index, term in enumerate(terms):
        detail = ", ".join([*term.benchmarks, term.value]) if term.title in doubled else ""
        named[f"{term.title} ({detail})" if detail else term.title] = means[:, index]
    return named
