"""What a labeller is: it scores segments of text for each label of a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from priorkit.data.images.decoding import ImageRef

MIN_SEGMENT_TOKENS = 16
"""Fewest tokens of a segment that must fit in a model's context with the prompt."""


@dataclass(frozen=True)
class SegmentScores:
    """Scores of segments.

    Attributes:
        scores: float32 ``[segments, labels]``, 0 to 1, in the order of the labeller's labels.
        truncated: bool ``[segments]``, true where the middle of a segment was left out.
        unparsed: bool ``[segments]``, true where an answer names neither a label nor none; it gives no label.
    """

    scores: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    unparsed: NDArray[np.bool_]


class ModelLabeller(Protocol):
    """A language model or a multimodal model."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that it scores."""
        ...

    def score(
        self, texts: Sequence[str], images: Sequence[tuple[ImageRef, ...]] | None = None
    ) -> SegmentScores:
        """Score segments; a segment's scores do not depend on the others, except for rounding.

        Args:
            texts: their texts.
            images: their images, where the model sees them.
        """
        ...
