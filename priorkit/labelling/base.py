"""What a labeller is: it scores segments of text for each label of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SegmentScores:
    """Scores of segments.

    Attributes:
        scores: float32 ``[segments, labels]``, 0 to 1, in the order of the labeller's labels.
        truncated: bool ``[segments]``, true where the middle of a segment was left out.
    """

    scores: NDArray[np.float32]
    truncated: NDArray[np.bool_]


class Labeller(Protocol):
    """A language model or a linear labeller."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that it scores."""
        ...

    def score(self, texts: Sequence[str]) -> SegmentScores:
        """Score segments; a segment's scores do not depend on the others, except for rounding."""
        ...
